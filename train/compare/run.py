"""The measuring: speeds side by side, then one training after the other."""

import re
import shutil
from pathlib import Path
from typing import Any

import jax

from ssmjax.analysis.flops import count_parameters
from train.compare.config import Comparison, Entry
from train.compare.records import Record, append_records, read_records
from train.compare.report import report
from train.engine.loop import train
from train.engine.session import Job
from train.engine.task import Model, Task
from train.engine.workdir import open_workdir
from train.hosts.devices import make_mesh
from train.hosts.runtime import Runtime, bars
from train.reports.speed import images_per_second, peak_memory
from train.reports.untrained import scores_of
from train.tasks.task import known_classes, open_task, tell

# Fields that may differ where a comparison is gone on with. They are those of
# `train.engine.workdir.FREE` that no measured speed depends on; and all entries share one training.
FREE = (
    "evaluate_every",
    "checkpoint_every",
    "data.path",
    "data.data_dir",
    "data.max_unreadable",
    "optim.max_skipped",
    "optim.remat",
)


def compare(comparison: Comparison, workdir: Path, command: str) -> None:
    """Measure what `workdir` does not hold yet, and report.

    Leaves there: `results.csv`, and what `train.compare.report.report` makes of it; and in `runs/`
    the log of every training.

    Args:
      comparison: what to do.
      workdir: created when missing; one that holds part of this comparison is gone on with.
      command: as typed, for the table to name.

    Raises:
      ValueError, train.data.fetching.fetch.DataError: one sentence for people.
    """
    if not comparison.entries:
        raise ValueError("The comparison has no entries; give some.")
    traces = "results.csv", "runs/*/*/checkpoints/*"
    open_workdir(workdir, comparison, "auto", *traces, free=FREE)
    table = workdir / "results.csv"
    made_by = {
        "command": command,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    progress = bars()
    runtime = Runtime(make_mesh(), progress)
    with progress:
        if "speed" in comparison.measure:
            for backbone in progress.track(comparison.models, description="speed"):
                _measure_speed(comparison, backbone, table, made_by)
        if "accuracy" in comparison.measure:
            for entry, seed in progress.track(comparison.runs, description="accuracy"):
                _measure_accuracy(comparison, entry, seed, table, made_by, runtime)
    report(table, progress.console)


def _measure_speed(comparison: Comparison, backbone: str, table: Path, made_by: dict) -> None:
    """Add the lines of speed of one backbone, whose models take turns, if they are not there."""
    if any(r.backbone == backbone and r.images_per_second is not None for r in _known(table)):
        return
    entries = comparison.of(backbone)
    task = open_task(comparison.inference_config(entries[0]))
    one = task.create(None, task.config.model.weights)
    models = [task.with_prune(one, entry.prune) for entry in entries]
    speeds = images_per_second(task, models)
    lines = [
        Record(
            **_facts(task, entry, model),
            **made_by,
            batch_size=comparison.eval_batch_size,
            images_per_second=speed,
            peak_memory=peak_memory(task, model),
        )
        for entry, model, speed in zip(entries, models, speeds, strict=True)
    ]
    append_records(table, lines)


def _measure_accuracy(
    comparison: Comparison,
    entry: Entry,
    seed: int,
    table: Path,
    made_by: dict,
    runtime: Runtime,
) -> None:
    """Add the line of one entry and seed, if it is not there; its training may be half done."""
    number = comparison.entries.index(entry)
    name = re.sub(r"\W+", "-", str(entry.key)).strip("-").lower()
    folder = table.parent / "runs" / f"{number}-{name}" / str(seed)
    if not any(r.key == entry.key and r.seed == seed for r in _known(table)):
        task = open_task(comparison.config(entry, seed))
        train_split, eval_split = task.open_splits(known_classes(task.config.model))
        tell(task, (train_split, eval_split), runtime)
        model, metadata = task.start(eval_split.class_names)
        model = task.with_prune(model, entry.prune)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(task, train_split, eval_split, metadata, runtime, folder)
        scores: dict[str, Any] = {}
        main, fresh = task.metrics[0], comparison.fresh(entry.backbone)
        chance = entry.prune is not None and entry.prune.strategy.by_chance
        if fresh or chance or seed == comparison.seeds[0]:
            title = f"{entry.key}, seed {seed}, {'untrained' if fresh else 'zero-shot'}"
            # Once, however often the training that follows is begun.
            found = scores_of(job, model, title)
            scores |= {"zero_shot": found[main], "zero_shot_metrics": found}
        if comparison.trains(entry):
            found = train(job, model)
            found = {name: found[name] for name in task.metrics}  # Of the average, if there is one.
            scores |= {"fine_tuned": found[main], "fine_tuned_metrics": found}
        line = Record(**_facts(task, entry, model), **made_by, seed=seed, **scores)
        append_records(table, [line])
    # Not before the line is safe, and also when a kill came between the two.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _known(table: Path) -> list[Record]:
    return read_records(table) if table.exists() else []


def _facts(task: Task, entry: Entry, model: Model) -> dict[str, Any]:
    """What a line says of its entry, whatever was measured."""
    flops = task.flops(model)
    return {
        **entry.key._asdict(),
        "tokens": ">".join(map(str, task.tokens(model))),
        "parameters": count_parameters(model),
        "flops": flops["total"],
        "published_flops": flops.get("as published", flops["total"]),
        "backbone_flops": flops.get("in the backbone"),
        "paper_score": entry.published.score,
        "paper_gflops": entry.published.gflops,
        "paper_speedup": entry.published.speedup,
        "heading": task.heading,
    }
