"""From the CSV of a comparison to its table, on screen and in Markdown, and its plots."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ssmjax.analysis.figure import FigureError
from ssmjax.atomic import replacing
from train.compare.columns import columns_of, heads_were_fresh
from train.compare.lines import Line, lines
from train.compare.plots import write_plots
from train.compare.records import Record, read_records
from train.reports.tables import markdown, print_rows


def report(table: Path, console: Console) -> None:
    """Print the table of a CSV and write it, and the plots, beside the CSV under the same name.

    Writes `NAME.md`, `NAME_flops.png` and `NAME_speed.png` for `NAME.csv`; the CSV alone decides
    what is in them.

    Raises:
      ValueError: there is no such file, or it is not one of ours.
    """
    records = read_records(table)
    found = lines(records)
    shown = [column for column in columns_of(found) if column.on_screen]
    print_rows(
        ("model", *(column.heading for column in shown)),
        (
            (
                f"{line.key.backbone}, {line.key.method}",
                line.key.kept or "every token",
                *(column.cell(line) for column in shown),
            )
            for line in found
        ),
        console,
    )
    with replacing(table.with_suffix(".md")) as temporary:
        temporary.write_text(as_markdown(records), encoding="utf-8")
    try:
        write_plots(found, table.with_suffix(""))
    except FigureError as error:
        console.print(str(error))
    console.print(f"CSV, table and plots are in {table.parent}/")


def as_markdown(records: Sequence[Record]) -> str:
    """The table, the commands that made it, what its columns are, and of fresh heads every metric.

    There is at least one record.
    """
    found = lines(records)
    shown = columns_of(found)
    commands = dict.fromkeys((r.command, r.device, r.jax) for r in records)
    made_by = "".join(
        f"Made by `{command}` on {device}, jax {jax}.\n" for command, device, jax in commands
    )
    cells = markdown(
        [column.heading for column in shown],
        ([column.cell(line) for column in shown] for line in found),
        words=sum(column.words for column in shown),
    )
    notes = [f"- {column.note}\n" for column in shown if column.note]
    if not any(line.zero_shot or line.fine_tuned for line in found):
        notes.append("- Accuracy: not measured.\n")
    if not any(line.speedup for line in found):
        notes.append("- Speed and memory: not measured.\n")
    parts = [made_by, cells, "".join(notes)]
    if heads_were_fresh(found):
        parts.append(_every_metric(found))
    return "\n".join(parts)


def _every_metric(found: Sequence[Line]) -> str:
    """A table of all metrics, untrained and trained."""
    found = [line for line in found if line.fine_tuned_metrics]
    names = dict.fromkeys(name for line in found for name in line.fine_tuned_metrics[0])
    cells = markdown(
        ["metric %", *(str(line.key) for line in found)],
        ([name, *(_change(line, name) for line in found)] for name in names),
        words=1,
    )
    return (
        "Every metric, untrained → trained: means over the seeds; - where there is nothing to "
        f"find.\n\n{cells}"
    )


def _change(line: Line, name: str) -> str:
    before, after = (
        statistics.fmean(metrics[name] for metrics in of)
        for of in (line.zero_shot_metrics, line.fine_tuned_metrics)
    )
    return "-" if after < 0 else f"{100 * before:.2f} → {100 * after:.2f}"
