"""Measure a dense model, prune it, measure again, fine-tune, measure again.

Without `prune` in the config it trains the dense model; without `model.weights`, from scratch.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from flax import nnx

from kernels.host_memory import keep_freed_memory
from ssmjax import command_line
from ssmjax.models.vit import ViTConfig
from ssmjax.weights import Metadata, save_weights
from train import cli, optim
from train.checkpoint import Checkpoints
from train.config import Config
from train.data.unreadable import Unreadable
from train.devices import check_batch_size, make_mesh, place_state, start_distributed
from train.dry_run import dry_run
from train.interrupt import Interrupt
from train.log import Log, Sink, open_sinks, read_log
from train.loop import Plan, fit
from train.options import RunOptions
from train.profile import Trace
from train.runtime import Runtime, bars
from train.start import means_of, start
from train.step import TrainState
from train.summary import Result, summarise
from train.tasks.task import Measure, Model, Split, Task, known_classes, measurer, open_task, tell
from train.workdir import open_workdir


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
    was measured best, `best.safetensors`, `results.{json,csv,md}`, `curve.png` and a picture, of
    classifiers when pruning. A run that is interrupted by SIGTERM leaves log and checkpoint.

    Raises:
      ValueError, train.data.fetch.DataError: one sentence for people.
    """
    task, workdir = open_task(config), options.workdir
    open_workdir(workdir, config, options.resume, "checkpoints/*")
    train_split, test_split = task.open_splits(known_classes(config.model))
    if runtime.first:
        task.check(train_split)
    model, metadata = task.start(test_split.class_names)
    measure = measurer(task, test_split, metadata, runtime)
    main = task.metrics[0]
    results: list[Result] = []
    with runtime.progress:
        tell(task, (train_split, test_split), runtime)
        for name, regime, variant in untrained(model, config):
            title = name if name == regime else f"{name}, {regime}"
            results.append((name, regime, variant, measure(variant, title).metrics[main]))
        model = task.with_prune(model, config.prune)
        sinks = (
            open_sinks(workdir, dataclasses.asdict(config), options.wandb) if runtime.first else []
        )
        trace = workdir / "profile" if options.profile else None
        trained = train(
            task,
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
    results.append((name, regime, model, trained[main]))
    if runtime.first:
        save_weights(workdir / "weights.safetensors", model, metadata)
        summarise(task, results, metadata, test_split, workdir, runtime.progress.console)


def untrained(model: Model, config: Config) -> list[tuple[str, str, Model]]:
    """What to measure before training, as (name, regime, model): nothing when from scratch."""
    if config.model.weights is None:
        return []
    models = [("dense", "dense", model)]
    if config.prune is not None:
        change = dataclasses.replace
        variants = {"pruned": config.prune}
        if not isinstance(model.config, ViTConfig):  # Which has no hidden state to align.
            variants["pruned, no alignment"] = change(config.prune, alignment="none")
        # Fusing takes scores.
        reduction = "drop" if config.prune.reduction == "fuse" else config.prune.reduction
        for name, importance in (("pruned at random", "random"), ("pruned evenly", "uniform")):
            variants[name] = change(config.prune, importance=importance, reduction=reduction)
        task = open_task(config)
        models += [(n, "zero-shot", task.with_prune(model, p)) for n, p in variants.items()]
    return models


def train(
    task: Task,
    model: Model,
    metadata: Metadata,
    split: Split,
    workdir: Path,
    measure: Measure,
    runtime: Runtime,
    *,
    sinks: Sequence[Sink] = (),
    trace: Path | None = None,
) -> Mapping[str, float]:
    """Train `model` in place, from the workdir's newest sound checkpoint if there is one.

    Args:
      task: of the run.
      model: where to start, pruned as it shall be.
      metadata: of the model, for the normalisation.
      split: the photos.
      workdir: gets log, checkpoints and the best weights.
      measure: gives the scores at the end of each epoch.
      runtime: where to compute.
      sinks: get what the log gets.
      trace: folder for a trace of a few steps.

    Returns:
      Every metric at the end.

    Raises:
      SystemExit: with status 0, after SIGTERM, when the state is saved.
      ValueError, train.data.fetch.DataError: as `train.loop.fit`; a checkpoint of another model.
    """
    config, mesh, main = task.config, runtime.mesh, task.metrics[0]
    chosen = config.optim
    check_batch_size(chosen.batch_size // chosen.accumulate, mesh, "optim.batch_size")
    steps_per_epoch = task.steps_per_epoch(split)
    plan = Plan(
        total=optim.total_steps(chosen, steps_per_epoch),
        per_epoch=steps_per_epoch,
        evaluate_every=steps_per_epoch * config.evaluate_every,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        max_skipped=chosen.max_skipped,
    )
    means = means_of(task, model, metadata, steps_per_epoch)
    state, step = start(task, model, means, mesh, runtime.fsdp)
    console = runtime.progress.console
    checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
    report = partial(console.print, markup=False, soft_wrap=True)
    restored, place = checkpoints.restore(state, report), {}
    if restored is not None:
        state, place = restored
        console.print(f"going on from step {int(state.step)}")
    done = int(state.step)
    log = Log(workdir, done, task.metrics, sinks)
    limit = getattr(config.data, "max_unreadable", 0)

    graphdef, _, _, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)

    def averaged(state: TrainState) -> Model:
        values = place_state((state.averaged, state.statistics), mesh, fsdp=False)
        return nnx.merge(graphdef, *values, others)

    def evaluate(state: TrainState) -> Mapping[str, float]:
        average = averaged(state)
        metrics = measure(average, f"step {int(state.step)}").metrics
        best = max((e[main] for e in read_log(log.path) if main in e), default=-math.inf)
        if runtime.first and metrics[main] > best:
            save_weights(workdir / "best.safetensors", average, metadata)
        return metrics

    with Interrupt() as interrupt, Trace(trace, done) as traced:
        state, metrics = fit(
            state,
            step,
            task.train_batches(split, model, metadata, done, runtime),
            plan,
            runtime=runtime,
            checkpoints=checkpoints,
            log=log,
            rate=means.rate,  # pyright: ignore[reportArgumentType]
            evaluate=evaluate,
            score=main,
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
    nnx.update(model, nnx.state(averaged(state)))
    # None of a run that was stopped after its last checkpoint.
    return evaluate(state) if metrics is None else metrics


if __name__ == "__main__":
    command_line.run(main)
