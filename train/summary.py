"""What a finished run leaves to look at: the table, the curve and the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ssmjax.analysis.flops import count_parameters
from ssmjax.weights import Metadata
from train.log import read_log
from train.report import ReportError, Row, print_table, write_curve, write_table
from train.speed import images_per_second
from train.tasks.task import Model, Split, Task

Result = tuple[str, str, Model, float]  # Name, regime (see `train.report.Row`), model, score.


def summarise(
    task: Task,
    results: Sequence[Result],
    metadata: Metadata,
    split: Split,
    workdir: Path,
    console: Console,
) -> None:
    """Measure speeds, print the table, and write everything into `workdir`.

    Args:
      task: says what was measured, and draws the picture.
      results: what was measured, the last one the model that was trained.
      metadata: class names and normalisation.
      split: where the pictured photos come from: its first ones.
      workdir: gets `results.{json,csv,md}`, `curve.png` and the task's picture, if it has one.
      console: where the table and the places of the files are told.
    """
    models = {model.config: model for _, _, model, _ in results}
    speeds = images_per_second(task, list(models.values()))
    rows = table_rows(task, results, dict(zip(models, speeds, strict=True)))
    print_table(rows, console, task.heading)
    write_table(rows, workdir, task.heading)
    try:
        log = read_log(workdir / "log.jsonl")
        write_curve(log, workdir / "curve.png", task.metrics[0], task.heading)
    except ReportError as error:
        console.print(str(error))
    picture = task.picture(results[-1][2], metadata, split)
    if picture is not None:
        picture.save(workdir / task.picture_name)
    console.print(f"Table, weights, log and pictures are in {workdir}/")


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
