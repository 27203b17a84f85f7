"""Measure a dense model, prune it, measure again, fine-tune, measure again.

Without `prune` in the config it trains the dense model; without `model.weights`, from scratch.
"""

import dataclasses
import functools
from pathlib import Path

import jax
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import ssmjax
from kernels.host_memory import keep_freed_memory
from ssmjax import command_line
from ssmjax.models.config import SSMConfig
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, read_metadata, save_weights
from train import cli, optim
from train.checkpoint import Checkpoints
from train.config import Config
from train.data.pipeline import Split, open_split, train_batches
from train.loop import Log, fit
from train.measure import Measure, measurer
from train.options import RunOptions
from train.step import init_state, make_train_step
from train.summary import Result, summarise
from train.workdir import open_workdir


def main() -> None:
    """The command: parse, run."""
    keep_freed_memory()
    config, options = cli.parse(Config, RunOptions, __doc__ or "")
    finetune(config, Path(options.workdir), options.resume)


def finetune(config: Config, workdir: Path, resume: str) -> None:
    """Run `config` in `workdir`.

    Leaves there: `log.jsonl`, `checkpoints/`, `weights.safetensors`, `results.{json,csv,md}`,
    `kept_tokens.png` (when pruning) and `curve.png`.

    Args:
      config: what to do.
      workdir: created when missing.
      resume: `auto` goes on from the newest checkpoint, if any; `never` refuses to find one.

    Raises:
      ValueError, train.data.fetch.DataError: one sentence for people.
    """
    console = Console(stderr=True)
    open_workdir(workdir, config, resume, "checkpoints/*")
    train_split, test_split = open_splits(config)
    model, metadata = start_model(config, test_split.class_names)
    with bars(console) as progress:
        measure = measurer(test_split.source, metadata, config, progress)
        results: list[Result] = []
        for name, regime, variant in untrained(model, config):
            title = name if name == regime else f"{name}, {regime}"
            results.append((name, regime, variant, measure(variant, title)))
        model = model.with_prune(config.prune)
        train(config, model, metadata, train_split, workdir, measure, progress)
        name = "dense" if config.prune is None else "pruned"
        scratch = "dense" if config.prune is None else "from scratch"
        regime = "fine-tuned" if config.model.weights else scratch
        results.append((name, regime, model, measure(model, f"{name}, after training")))
    save_weights(workdir / "weights.safetensors", model, metadata)
    summarise(
        results,
        metadata,
        test_split,
        workdir,
        batch_size=config.eval_batch_size,
        pictures=config.pictures,
        console=console,
    )


def bars(console: Console) -> Progress:
    """What shows how far each task is, and how long it will take."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=not console.is_terminal)


def open_splits(config: Config) -> tuple[Split, Split]:
    """The photos to train on and those to measure on.

    Raises:
      ValueError: no such weights.
      train.data.fetch.DataError: no such photos, or of other classes than the weights'.
    """
    data, weights = config.data, config.model.weights
    classes = read_metadata(weights).class_names if weights else ()
    train_split, test_split = (
        open_split(data.name, split, data.data_dir, classes)
        for split in (data.train_split, data.eval_split)
    )
    return train_split, test_split


def start_model(config: Config, class_names: tuple[str, ...]) -> tuple[ssmjax.Backbone, Metadata]:
    """The dense model a run starts from, and what its weight file will say.

    Raises:
      ValueError: unknown model or field, impossible value, or weights for other classes.
    """
    chosen = config.model
    if chosen.weights is None:
        if chosen.name is None:
            raise ValueError("model.name is missing; give one of ssmjax.list_models(), or weights.")
        model = ssmjax.create_model(
            chosen.name, seed=config.seed, num_classes=len(class_names), **chosen.overrides()
        )
        mean, std, name = config.data.mean, config.data.std, chosen.name
    else:
        stored = read_metadata(chosen.weights)
        model = ssmjax.create_model(
            chosen.name, weights=chosen.weights, prune=None, **chosen.overrides()
        )
        outputs = model.config.num_classes
        if outputs != len(class_names):
            raise ValueError(
                f"{chosen.weights} tells {outputs} classes apart; the data set "
                f"{config.data.name} has {len(class_names)}."
            )
        mean, std, name = stored.mean, stored.std, stored.model
    trained = model.with_prune(config.prune)  # Refuses blocks that the model does not have, early.
    overrides = config_overrides(name, trained.config)
    return model, Metadata(name, overrides, class_names, mean, std)


def untrained(model: ssmjax.Backbone, config: Config) -> list[tuple[str, str, ssmjax.Backbone]]:
    """What to measure before training, as (name, regime, model): nothing when from scratch."""
    if config.model.weights is None:
        return []
    models = [("dense", "dense", model)]
    if config.prune is not None:
        change = dataclasses.replace
        variants = {"pruned": config.prune}
        if isinstance(model.config, SSMConfig):  # Others have no hidden state to align.
            variants["pruned, no alignment"] = change(config.prune, alignment="none")
        # Fusing takes scores.
        reduction = "drop" if config.prune.reduction == "fuse" else config.prune.reduction
        for name, importance in (("pruned at random", "random"), ("pruned evenly", "uniform")):
            variants[name] = change(config.prune, importance=importance, reduction=reduction)
        models += [(name, "zero-shot", model.with_prune(p)) for name, p in variants.items()]
    return models


def train(
    config: Config,
    model: ssmjax.Backbone,
    metadata: Metadata,
    split: Split,
    workdir: Path,
    measure: Measure,
    progress: Progress,
) -> None:
    """Train `model` in place, from the workdir's newest checkpoint if there is one."""
    options = config.optim
    batches = train_batches(
        split.source,
        batch_size=options.batch_size,
        image_size=model.config.image_shape[0],
        seed=config.seed,
        augment=config.data.augment.crop != "resize",
        mean=metadata.mean,
        std=metadata.std,
    )
    steps_per_epoch = len(split.source) // options.batch_size
    rate = optim.schedule(options, steps_per_epoch)
    optimizer = optim.optimizer(options, rate)
    teacher = model.with_prune(None) if options.distill else None
    graphdef, params, buffers = nnx.split(model, nnx.Param, ...)
    state = init_state(params, optimizer)
    checkpoints, losses = Checkpoints(workdir, keep=config.keep_checkpoints), []
    report = functools.partial(progress.console.print, markup=False, soft_wrap=True)
    restored = checkpoints.restore(state, report)
    if restored is not None:
        state, place = restored
        batches.set_state(place["batches"])
        losses = place["losses"]
        progress.console.print(f"going on from step {int(state.step)}")
    state = fit(
        state,
        make_train_step(model, optimizer, options, jax.random.key(config.seed), teacher),
        batches,
        total_steps=max(1, round(options.epochs * steps_per_epoch)),
        steps_per_epoch=steps_per_epoch,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        checkpoints=checkpoints,
        log=Log(workdir / "log.jsonl", int(state.step)),
        rate=rate,  # pyright: ignore[reportArgumentType]
        evaluate=lambda state: measure(
            nnx.merge(graphdef, state.averaged, buffers), f"step {int(state.step)}"
        ),
        progress=progress,
        losses=losses,
    )
    checkpoints.close()
    nnx.update(model, state.averaged)


if __name__ == "__main__":
    command_line.run(main)
