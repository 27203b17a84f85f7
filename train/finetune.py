"""Measure a dense model, prune it, measure again, fine-tune, measure again.

Without `prune` in the config it trains the dense model; without `model.weights`, from scratch.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from flax import nnx

from kernels.host_memory import keep_freed_memory
from ssmjax import command_line
from ssmjax.weights import Metadata, save_weights
from train import cli, optim
from train.checkpoint import Checkpoints
from train.config import Config
from train.data.unreadable import Unreadable
from train.devices import (
    make_mesh,
    of_this_process,
    start_distributed,
    whole,
)
from train.dry_run import dry_run
from train.interrupt import Interrupt
from train.kept import Kept
from train.log import Log, Sink, open_sinks, read_log
from train.loop import Plan, fit
from train.options import RunOptions
from train.profile import Trace
from train.runtime import Runtime, bars
from train.start import check_parts, means_of, start
from train.step import TrainState
from train.summary import RAW, Result, summarise, trained_results
from train.tasks.task import Measure, Model, Split, Task, known_classes, measurer, open_task, tell
from train.untrained import scores_of, untrained
from train.workdir import FREE, GROWING, Difference, open_workdir


def main() -> None:
    """The command: parse, run."""
    keep_freed_memory()
    config, options = cli.parse(Config, RunOptions, __doc__ or "")
    start_distributed(options.distributed)
    if options.dry_run:
        dry_run(config, options.fsdp, options.target)
    else:
        finetune(config, options, Runtime(make_mesh(), bars(), options.workers, options.fsdp))


def finetune(config: Config, options: RunOptions, runtime: Runtime) -> None:
    """Run `config` in `options.workdir`.

    Leaves there: `config.json`, `measured.json` (see `train.kept`), `log.{jsonl,csv}`,
    `checkpoints/`, `weights.safetensors` and, of the epoch that was measured best,
    `best.safetensors`, `results.{json,csv,md}`, `curve.png` and a picture, of classifiers when
    pruning. A run that is interrupted by SIGTERM leaves all but weights, results and pictures.

    Raises:
      ValueError, train.data.fetch.DataError: one sentence for people.
    """
    task, workdir = open_task(config), options.workdir
    may_differ = (*FREE, *GROWING)
    changes = open_workdir(workdir, config, options.resume, "checkpoints/*", free=may_differ)
    train_split, test_split = task.open_splits(known_classes(config.model))
    if runtime.first:
        task.check(train_split)
    model, metadata = task.start(test_split.class_names)
    measure = measurer(task, test_split, metadata, runtime)
    kept = Kept(workdir / "measured.json")
    with runtime.progress:
        tell(task, (train_split, test_split), runtime)
        tell_changes(changes, runtime)
        results: list[Result] = []
        for other in untrained(model, config):
            given = task, test_split, measure, kept, runtime
            found = scores_of(other.model, other.title, *given)
            score = found[task.metrics[0]]
            results.append((other.name, other.regime, other.model, score))
        model = task.with_prune(model, config.prune)
        sinks = (
            open_sinks(workdir, dataclasses.asdict(config), options.wandb) if runtime.first else []
        )
        trace = workdir / "profile" if options.profile and runtime.first else None
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
    if runtime.first:
        save_weights(workdir / "weights.safetensors", model, metadata)
        results += trained_results(task, model, trained, read_log(workdir / "log.jsonl"))
        summarise(task, results, metadata, test_split, workdir, runtime.progress.console, kept)


def tell_changes(changes: Sequence[Difference], runtime: Runtime) -> None:
    """Say in what a run that is gone on with differs from its beginning."""
    for change in changes:
        longer = change.field in GROWING
        runtime.say(f"{change}{'; the schedule follows the new length' if longer else ''}")


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

    Where parameters are averaged it becomes the average, and both are measured: the raw ones by
    the metrics' names behind `RAW`. The average's main metric tells which epoch is best.

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
    check_parts(chosen, mesh)
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
    checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
    restored, place = checkpoints.restore(state, runtime.say), {}
    if restored is not None:
        state, place = restored
        runtime.say(f"going on from step {int(state.step)}")
    done = int(state.step)
    raw = [RAW + name for name in task.metrics] if chosen.ema is not None else []
    log = Log(workdir, done, (*task.metrics, *raw), sinks)
    limit = getattr(config.data, "max_unreadable", 0)

    graphdef, _, _, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)

    def model_of(params: nnx.State, state: TrainState) -> Model:
        return nnx.merge(graphdef, *whole((params, state.statistics), mesh), others)

    def evaluate(state: TrainState) -> Mapping[str, float]:
        average, title = model_of(state.averaged, state), f"step {int(state.step)}"
        metrics = dict(measure(average, title).metrics)
        if runtime.first:
            best = max((e[main] for e in read_log(log.path) if main in e), default=-math.inf)
            if metrics[main] > best:
                save_weights(workdir / "best.safetensors", average, metadata)
        if raw:
            found = measure(model_of(state.params, state), f"{title}, not averaged").metrics
            metrics |= {RAW + name: value for name, value in found.items()}
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
            unreadable=Unreadable(
                split, limit, runtime.progress.console, place.get("unreadable", ())
            ),
            interrupt=interrupt,
            trace=traced,
            place=place,
        )
    checkpoints.close()
    log.close()
    if int(state.step) < plan.total:
        runtime.say(
            f"stopped by SIGTERM after step {int(state.step)} of {plan.total}, which is saved; go "
            "on with --resume auto"
        )
        raise SystemExit(0)
    if metrics is None:  # Of a run that had ended, or was stopped after its last checkpoint.
        metrics = place.get("metrics") or evaluate(state)
    average = whole((state.averaged, state.statistics), mesh)
    nnx.update(model, *of_this_process(average))
    return metrics


if __name__ == "__main__":
    command_line.run(main)
