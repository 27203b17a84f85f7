"""What a finished run leaves to look at: the table, the curve and the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.text import Text

from ssmjax.analysis.flops import count_parameters
from ssmjax.weights import Metadata
from train.kept import Kept
from train.log import read_log
from train.report import ReportError, Row, print_table, write_curve, write_table
from train.speed import images_per_second
from train.tasks.task import Model, Split, Task

Result = tuple[str, str, Model, float]  # Name, regime (see `train.report.Row`), model, score.

RAW = "raw_"  # Before the name of a metric: of the parameters that are not averaged.


def trained_results(
    task: Task, model: Model, metrics: Mapping[str, float], log: Sequence[Mapping[str, Any]]
) -> list[Result]:
    """Rows of the model that was trained: of the best epoch, where there are several, and the last.

    Where parameters are averaged, of the raw ones too, before the average's. The last row is that
    of `weights.safetensors`.

    Args:
      task: of the run.
      model: as it is at the end.
      metrics: every one at the end.
      log: the entries of the run.
    """
    config, main = task.config, task.metrics[0]
    name = "dense" if config.prune is None else "pruned"
    scratch = "dense" if config.prune is None else "from scratch"
    regime = "fine-tuned" if config.model.weights else scratch
    rows = []
    for key, of in ((RAW + main, f"{regime}, raw"), (main, regime)):
        measured = [entry[key] for entry in log if key in entry]
        if key in metrics and len(measured) > 1:
            rows.append((name, f"{of}, best epoch", model, max(measured)))
        if key in metrics:
            rows.append((name, of, model, metrics[key]))
    return rows


def summarise(
    task: Task,
    results: Sequence[Result],
    metadata: Metadata,
    split: Split,
    workdir: Path,
    console: Console,
    kept: Kept,
) -> None:
    """Measure speeds, unless this device has, print the table, and write all of it into `workdir`.

    Args:
      task: says what was measured, and draws the picture.
      results: what was measured, the last one the model that was trained.
      metadata: class names and normalisation.
      split: where the pictured photos come from: its first ones.
      workdir: gets `results.{json,csv,md}`, `curve.png` and the task's picture, if it has one.
      console: where the table and the places of the files are told.
      kept: what earlier starts have measured.
    """
    models = {model.config: model for _, _, model, _ in results}
    speeds = _speeds(task, models, kept)
    rows = table_rows(task, results, dict(zip(models, speeds, strict=True)))
    print_table(rows, console, task.heading)
    write_table(rows, workdir, task.heading)
    try:
        log = read_log(workdir / "log.jsonl")
        write_curve(log, workdir / "curve.png", task.metrics[0], task.heading)
    except ReportError as error:
        console.print(Text(str(error)), soft_wrap=True)
    picture = task.picture(results[-1][2], metadata, split)
    if picture is not None:
        picture.save(workdir / task.picture_name)
    console.print(Text(f"Table, weights, log and pictures are in {workdir}/"), soft_wrap=True)


def _speeds(task: Task, models: Mapping[Any, Model], kept: Kept) -> list[float]:
    """Images/s of models by their configs, side by side."""
    device = jax.devices()[0].device_kind
    depends = list(models), task.config.eval_batch_size, device, jax.__version__
    speeds = kept.get("images/s", depends)
    if speeds is None:
        speeds = images_per_second(task, list(models.values()))
        kept.put("images/s", depends, speeds)
    return speeds


def table_rows(task: Task, results: Sequence[Result], speeds: Mapping) -> list[Row]:
    """The rows of the table; speed-ups are over the dense model, where there is one."""
    dense = next((speeds[m.config] for _, regime, m, _ in results if regime == "dense"), None)
    return [
        Row(
            name=name,
            regime=regime,
            tokens=task.tokens(model),
            accuracy=score,
            flops=task.flops(model)["total"],
            parameters=count_parameters(model),
            images_per_second=speeds[model.config],
            speedup=speeds[model.config] / dense if dense else None,
        )
        for name, regime, model, score in results
    ]
