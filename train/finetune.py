"""Measure a dense model, prune it, measure again, fine-tune, measure again.

Without `prune` in the config it trains the dense model; without `model.weights`, from scratch.
"""

import dataclasses
from collections.abc import Sequence

from kernels.host_memory import keep_freed_memory
from ssmjax import command_line
from ssmjax.weights import save_weights
from train import cli
from train.config import Config
from train.engine.log import open_sinks, read_log
from train.engine.loop import train
from train.engine.session import Job
from train.engine.workdir import FREE, GROWING, Difference, open_workdir
from train.hosts.devices import make_mesh, start_distributed
from train.hosts.options import RunOptions
from train.hosts.runtime import Runtime, bars
from train.reports.dry_run import dry_run
from train.reports.summary import Result, summarise, trained_results
from train.reports.untrained import scores_of, untrained
from train.tasks.task import known_classes, open_task, tell


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

    Leaves there: `config.json`, `measured.json` (see `train.engine.kept`), `log.{jsonl,csv}`,
    `checkpoints/`, `weights.safetensors` and, of the epoch that was measured best,
    `best.safetensors`, `results.{json,csv,md}`, `curve.png` and a picture, of classifiers when
    pruning. A run that is interrupted by SIGTERM leaves all but weights, results and pictures.

    Raises:
      ValueError, train.data.fetching.fetch.DataError: one sentence for people.
    """
    task, workdir = open_task(config), options.workdir
    may_differ = (*FREE, *GROWING)
    changes = open_workdir(workdir, config, options.resume, "checkpoints/*", free=may_differ)
    train_split, eval_split = task.open_splits(known_classes(config.model))
    if runtime.first:
        task.check(train_split)
    model, metadata = task.start(eval_split.class_names)
    job = Job(task, train_split, eval_split, metadata, runtime, workdir)
    with runtime.progress:
        tell(task, (train_split, eval_split), runtime)
        tell_changes(changes, runtime)
        results: list[Result] = []
        for other in untrained(task, model):
            scores = scores_of(job, other.model, other.title)
            results.append(Result(*other, scores[task.metrics[0]]))
        model = task.with_prune(model, config.prune)
        sinks = open_sinks(workdir, dataclasses.asdict(config), options.wandb)
        trace = workdir / "profile" if options.profile and runtime.first else None
        trained = train(job, model, sinks, trace)
    if runtime.first:
        save_weights(workdir / "weights.safetensors", model, metadata)
        results += trained_results(task, model, trained, read_log(workdir / "log.jsonl"))
        summarise(job, results)


def tell_changes(changes: Sequence[Difference], runtime: Runtime) -> None:
    """Say in what a run that is gone on with differs from its beginning."""
    for change in changes:
        longer = change.field in GROWING
        runtime.say(f"{change}{'; the schedule follows the new length' if longer else ''}")


if __name__ == "__main__":
    command_line.run(main)
