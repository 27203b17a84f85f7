"""What a finished run leaves to look at: the table, the curve and the picture."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from rich.text import Text

from ssmjax.analysis.figure import FigureError
from ssmjax.analysis.flops import count_parameters
from train.engine.log import read_log
from train.engine.session import RAW, Job
from train.engine.task import Model, Task
from train.reports.speed import images_per_second
from train.reports.tables import Row, print_table, write_curve, write_table


class Result(NamedTuple):
    """One measured model: its name and regime in tables, and the main metric's value."""

    name: str
    regime: str
    model: Model
    score: float


def trained_results(
    task: Task, model: Model, metrics: Mapping[str, float], log: Sequence[Mapping[str, Any]]
) -> list[Result]:
    """Rows of the model that was trained: of the best epoch, where there are several, and the last.

    Where parameters are averaged, of the raw ones too, before the average's. The last row is that
    of `weights.safetensors`. Model and metrics are those at the end, `log` has the run's entries.
    """
    config, main = task.config, task.metrics[0]
    name = "dense" if config.prune is None else "pruned"
    scratch = "dense" if config.prune is None else "from scratch"
    regime = "fine-tuned" if config.model.weights else scratch
    rows = []
    for key, of in ((RAW + main, f"{regime}, raw"), (main, regime)):
        measured = [entry[key] for entry in log if key in entry]
        if key in metrics and len(measured) > 1:
            rows.append(Result(name, f"{of}, best epoch", model, max(measured)))
        if key in metrics:
            rows.append(Result(name, of, model, metrics[key]))
    return rows


def summarise(job: Job, results: Sequence[Result]) -> None:
    """Measure speeds, unless this device has, print the table, and write all of it down.

    The workdir gets `results.{json,csv,md}`, `curve.png` and the task's picture, if it has one, of
    the first images that were measured on, by the model of the last result.
    """
    task, workdir, console = job.task, job.workdir, job.runtime.progress.console
    models = {result.model.config: result.model for result in results}
    speeds = _speeds(job, models)
    rows = table_rows(task, results, dict(zip(models, speeds, strict=True)))
    print_table(rows, console, task.heading)
    write_table(rows, workdir, task.heading)
    try:
        log = read_log(workdir / "log.jsonl")
        write_curve(log, workdir / "curve.png", task.metrics[0], task.heading)
    except FigureError as error:
        console.print(Text(str(error)), soft_wrap=True)
    picture = task.picture(results[-1].model, job.metadata, job.eval_split)
    if picture is not None:
        picture.save(workdir / task.picture_name)
    console.print(Text(f"Table, weights, log and pictures are in {workdir}/"), soft_wrap=True)


def _speeds(job: Job, models: Mapping[Any, Model]) -> list[float]:
    """Images/s of models by their configs, side by side."""
    device = jax.devices()[0].device_kind
    depends = list(models), job.task.config.eval_batch_size, device, jax.__version__
    speeds = job.kept.get("images/s", depends)
    if speeds is None:
        speeds = images_per_second(job.task, list(models.values()))
        job.kept.put("images/s", depends, speeds)
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
