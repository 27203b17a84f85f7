"""From the CSV of a comparison to its table, on screen and in Markdown, and its plots."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from ssmjax.analysis.flops import format_flops
from ssmjax.atomic import replacing
from train.compare.lines import Line, lines, mean_and_deviation
from train.compare.plots import write_plots
from train.compare.records import Record, read_records
from train.report import ReportError, markdown, print_rows


def report(table: Path, console: Console) -> None:
    """Print the table of a CSV and write it, and the plots, beside the CSV under the same name.

    Writes `NAME.md`, `NAME_flops.png` and `NAME_speed.png` for `NAME.csv`; the CSV alone decides
    what is in them.

    Raises:
      ValueError: there is no such file, or it is not one of ours.
    """
    records = read_records(table)
    found = lines(records)
    shown = [column for column in _COLUMNS if column.on_screen and any(map(column.cell, found))]
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
    except ReportError as error:
        console.print(str(error))
    console.print(f"CSV, table and plots are in {table.parent}/")


def as_markdown(records: Sequence[Record]) -> str:
    """The table, the commands that made it, and what its columns are."""
    found = lines(records)
    shown = [column for column in _COLUMNS if any(map(column.cell, found))]
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
    return "\n".join((made_by, cells, "".join(notes)))


class Column(NamedTuple):
    """One column; those without any text are left out.

    Attributes:
      heading: its name.
      cell: its text for a line; empty where there is nothing to say.
      note: a sentence that explains it.
      words: whether it holds words, not numbers.
      on_screen: whether it is also shown on screen, where there is little room.
    """

    heading: str
    cell: Callable[[Line], str]
    note: str = ""
    words: bool = False
    on_screen: bool = False


def _percent(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")


def _points(values: Sequence[float], dense: Line | None) -> str:
    if not values or dense is None or not dense.accuracy:
        return ""
    difference = mean_and_deviation(values)[0] - mean_and_deviation(dense.accuracy)[0]
    return f"{100 * difference:+.2f}"


def _paper_top1(line: Line) -> str:
    mine, dense = line.facts.paper_top1, line.dense and line.dense.facts.paper_top1
    if mine is None:
        return ""
    return f"{mine:.1f}" + (f" ({mine - dense:+.1f})" if dense is not None else "")


def _number(pattern: str, value: float | None) -> str:
    return "" if value is None else pattern.format(value)


_COLUMNS = (
    Column("backbone", lambda line: line.key.backbone, words=True),
    Column("method", lambda line: line.key.method, words=True),
    Column("keep", lambda line: line.key.kept, "keep: share of the tokens, after blocks.", True),
    Column("tokens", lambda line: line.facts.tokens, words=True),
    Column(
        "zero-shot %",
        lambda line: _percent(line.zero_shot),
        "zero-shot: top-1 before any fine-tuning; of a dense model, as it was given.",
        on_screen=True,
    ),
    Column("points", lambda line: _points(line.zero_shot, line.dense)),
    Column(
        "fine-tuned %",
        lambda line: _percent(line.fine_tuned),
        "fine-tuned: mean ± sample standard deviation of top-1 over the seeds, all after the same "
        "fine-tune.",
        on_screen=True,
    ),
    Column(
        "points",
        lambda line: _points(line.fine_tuned, line.dense),
        "points: against the dense model as it was given.",
        on_screen=True,
    ),
    Column("seeds", lambda line: str(len(line.fine_tuned) or "")),
    Column(
        "FLOPs",
        lambda line: format_flops(line.facts.flops),
        "FLOPs: multiply-adds of one image, every scan direction counted.",
    ),
    Column(
        "fewer %",
        lambda line: _number("{:.1f}", line.flops_ratio and 100 * (1 - 1 / line.flops_ratio)),
        on_screen=True,
    ),
    Column(
        "images/s",
        lambda line: _number("{:,.1f}", line.facts.images_per_second),
        "images/s: median of synchronised runs, in which the models of a backbone take turns in "
        "one process.",
    ),
    Column("batch", lambda line: _number("{}", line.facts.batch_size)),
    Column("speed-up", lambda line: _number("{:.2f}x", line.speedup), on_screen=True),
    Column(
        "eta",
        lambda line: _number("{:.2f}", line.eta),
        "eta: (speed-up - 1) / (dense FLOPs / FLOPs - 1), which is 1 where all that was saved "
        "became speed.",
    ),
    Column(
        "MB",
        lambda line: _number("{:,.0f}", line.facts.peak_memory and line.facts.peak_memory / 1e6),
        "MB: parameters, images, results and temporary arrays of one such run, by the compiled "
        "program's account.",
    ),
    Column("parameters", lambda line: f"{line.facts.parameters:,}"),
    Column(
        "published %",
        _paper_top1,
        "published: the papers' own numbers, in brackets against their dense model.",
    ),
    Column("published FLOPs", lambda line: _number("{:.2f} G", line.facts.paper_gflops)),
    Column(
        "FLOPs as published",
        lambda line: (
            "" if line.facts.paper_gflops is None else format_flops(line.facts.published_flops)
        ),
        "FLOPs as published: ours counted as the papers do, with one direction of Vim's two.",
    ),
    Column("published speed-up", lambda line: _number("{:.2f}x", line.facts.paper_speedup)),
)
