"""Measure a dense model, prune it, measure again, fine-tune, measure again.

Without `prune` in the config it trains the dense model; without `model.weights`, from scratch.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from flax import nnx

import ssmjax
from kernels.host_memory import keep_freed_memory
from ssmjax import command_line
from ssmjax.models.config import SSMConfig
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, read_metadata, save_weights
from train import cli, optim
from train.checkpoint import Checkpoints
from train.config import Config
from train.data.check import check_classes
from train.data.pipeline import epoch_steps, train_batches
from train.data.source import Split, open_split
from train.data.unreadable import Unreadable
from train.devices import check_batch_size, make_mesh, place_state, start_distributed
from train.dry_run import dry_run
from train.interrupt import Interrupt
from train.log import Log, Sink, open_sinks, read_log
from train.loop import Plan, fit
from train.measure import Measure, measurer
from train.options import RunOptions
from train.profile import Trace
from train.runtime import Runtime, bars
from train.step import TrainState, init_state, make_train_step
from train.summary import Result, summarise
from train.tasks.classify import make_loss
from train.workdir import open_workdir

METRICS = ("accuracy", "top5")  # What the log has of each epoch's end.


def main() -> None:
    """The command: parse, run."""
    keep_freed_memory()
    config, options = cli.parse(Config, RunOptions, __doc__ or "")
    start_distributed(options.distributed)
    if options.dry_run:
        dry_run(config, options.fsdp)
    else:
        finetune(config, options, Runtime(make_mesh(), bars(), options.workers, options.fsdp))


def finetune(config: Config, options: RunOptions, runtime: Runtime) -> None:
    """Run `config` in `options.workdir`.

    Leaves there: `log.{jsonl,csv}`, `checkpoints/`, `weights.safetensors` and, of the epoch that
    was measured best, `best.safetensors`, `results.{json,csv,md}`, `kept_tokens.png` (when pruning)
    and `curve.png`. A run that is interrupted by SIGTERM leaves log and checkpoint.

    Raises:
      ValueError, train.data.fetch.DataError: one sentence for people.
    """
    workdir = Path(options.workdir)
    open_workdir(workdir, config, options.resume, "checkpoints/*")
    train_split, test_split = open_splits(config)
    if runtime.first:
        check_classes(train_split)
    model, metadata = start_model(config, test_split.class_names)
    measure = measurer(test_split, metadata, config, runtime)
    results: list[Result] = []
    with runtime.progress:
        for name, regime, variant in untrained(model, config):
            title = name if name == regime else f"{name}, {regime}"
            results.append((name, regime, variant, measure(variant, title).top1))
        model = model.with_prune(config.prune)
        sinks = (
            open_sinks(workdir, dataclasses.asdict(config), options.wandb) if runtime.first else []
        )
        trace = workdir / "profile" if options.profile else None
        accuracy = train(
            config,
            model,
            metadata,
            train_split,
            workdir,
            measure,
            runtime,
            sinks=sinks,
            trace=trace,
        )
    name = "dense" if config.prune is None else "pruned"
    scratch = "dense" if config.prune is None else "from scratch"
    regime = "fine-tuned" if config.model.weights else scratch
    results.append((name, regime, model, accuracy))
    if runtime.first:
        save_weights(workdir / "weights.safetensors", model, metadata)
        summarise(
            results,
            metadata,
            test_split,
            workdir,
            batch_size=config.eval_batch_size,
            pictures=config.pictures,
            console=runtime.progress.console,
        )


def open_splits(config: Config) -> tuple[Split, Split]:
    """The photos to train on and those to measure on.

    Raises:
      ValueError: no such weights.
      train.data.fetch.DataError: no such photos, or of other classes than the weights'.
    """
    data, weights = config.data, config.model.weights
    classes = ()
    if weights and not config.model.new_head:
        classes = read_metadata(weights).class_names
    train_split = open_split(data, data.train_split, classes)
    return train_split, open_split(data, data.eval_split, train_split.class_names)


def start_model(config: Config, class_names: tuple[str, ...]) -> tuple[ssmjax.Backbone, Metadata]:
    """The dense model a run starts from, and what its weight file will say.

    Raises:
      ValueError: unknown model or field, impossible value, or weights for other classes.
    """
    chosen, data = config.model, config.data
    if chosen.weights is None:
        if chosen.name is None:
            raise ValueError("model.name is missing; give one of ssmjax.list_models(), or weights.")
        model = ssmjax.create_model(
            chosen.name, seed=config.seed, num_classes=len(class_names), **chosen.overrides()
        )
        name, mean, std, crop_pct = chosen.name, data.mean, data.std, 1.0
    else:
        stored = read_metadata(chosen.weights)
        head = {"num_classes": len(class_names)} if chosen.new_head else {}
        options = chosen.overrides() | head
        model = ssmjax.create_model(
            chosen.name, seed=config.seed, weights=chosen.weights, prune=None, **options
        )
        outputs = model.config.num_classes
        if outputs != len(class_names):
            raise ValueError(
                f"{chosen.weights} tells {outputs} classes apart; the data set "
                f"{data.name} has {len(class_names)}. Give --model.new-head to learn new ones."
            )
        name, mean, std, crop_pct = stored.model, stored.mean, stored.std, stored.crop_pct
    # Both refuse what the model does not have, early.
    trained = model.with_prune(config.prune)
    optim.frozen_mask(nnx.state(model, nnx.Param), config.optim.frozen)
    overrides = config_overrides(name, trained.config)
    crop_pct = crop_pct if data.crop_pct is None else data.crop_pct
    return model, Metadata(name, overrides, class_names, mean, std, crop_pct)


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
    runtime: Runtime,
    *,
    sinks: Sequence[Sink] = (),
    trace: Path | None = None,
) -> float:
    """Train `model` in place, from the workdir's newest sound checkpoint if there is one.

    Args:
      config: of the run.
      model: where to start, pruned as it shall be.
      metadata: of the model, for the normalisation.
      split: the photos.
      workdir: gets log, checkpoints and the best weights.
      measure: gives the accuracy at the end of each epoch.
      runtime: where to compute.
      sinks: get what the log gets.
      trace: folder for a trace of a few steps.

    Returns:
      The accuracy at the end.

    Raises:
      SystemExit: with status 0, after SIGTERM, when the state is saved.
      ValueError, train.data.fetch.DataError: as `train.loop.fit`; a checkpoint of another model.
    """
    chosen, mesh = config.optim, runtime.mesh
    check_batch_size(chosen.batch_size // chosen.accumulate, mesh, "optim.batch_size")
    steps_per_epoch = epoch_steps(split, chosen.batch_size)
    plan = Plan(
        total=max(1, round(chosen.epochs * steps_per_epoch)),
        per_epoch=steps_per_epoch,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        max_skipped=chosen.max_skipped,
    )
    rate = optim.schedule(chosen, steps_per_epoch)
    optimizer = optim.optimizer(chosen, rate, model.breaks)
    graphdef, params, buffers = nnx.split(model, nnx.Param, ...)
    loss = make_loss(
        chosen,
        config.data.augment,
        num_classes=model.config.num_classes,
        mean=metadata.mean,
        std=metadata.std,
        teacher=model.with_prune(None) if chosen.distill else None,
    )
    state = place_state(init_state(params, optimizer), mesh, runtime.fsdp)
    console = runtime.progress.console
    checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
    report = partial(console.print, markup=False, soft_wrap=True)
    restored, place = checkpoints.restore(state, report), {}
    if restored is not None:
        state, place = restored
        console.print(f"going on from step {int(state.step)}")
    done = int(state.step)
    log = Log(workdir, done, METRICS, sinks)
    limit = config.data.max_unreadable

    def evaluate(state: TrainState) -> dict[str, float]:
        averaged = nnx.merge(graphdef, place_state(state.averaged, mesh, fsdp=False), buffers)
        scores = measure(averaged, f"step {int(state.step)}")
        best = max((e["accuracy"] for e in read_log(log.path) if "accuracy" in e), default=-1)
        if runtime.first and scores.top1 > best:
            save_weights(workdir / "best.safetensors", averaged, metadata)
        return {"accuracy": scores.top1, "top5": scores.top5}

    with Interrupt() as interrupt, Trace(trace, done) as traced:
        state, metrics = fit(
            state,
            make_train_step(model, optimizer, chosen, loss, jax.random.key(config.seed), state),
            train_batches(
                split,
                batch_size=chosen.batch_size,
                size=model.config.image_shape[:2],
                seed=config.seed,
                augment=config.data.augment,
                mean=metadata.mean,
                first=done,
                workers=runtime.workers,
                process=runtime.process,
            ),
            plan,
            runtime=runtime,
            checkpoints=checkpoints,
            log=log,
            rate=rate,  # pyright: ignore[reportArgumentType]
            evaluate=evaluate,
            unreadable=Unreadable(split, limit, console, place.get("unreadable", ())),
            interrupt=interrupt,
            trace=traced,
            unlogged=place.get("unlogged", ()),
        )
    checkpoints.close()
    log.close()
    if int(state.step) < plan.total:
        console.print(
            f"stopped by SIGTERM after step {int(state.step)} of {plan.total}, which is saved; go "
            "on with --resume auto"
        )
        raise SystemExit(0)
    nnx.update(model, place_state(state.averaged, mesh, fsdp=False))
    if metrics is None:  # A run that was stopped after its last checkpoint.
        metrics = evaluate(state)
    return metrics["accuracy"]


if __name__ == "__main__":
    command_line.run(main)
