"""The end of a run: its results as a table on screen and in files, and its curve as a picture."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssmjax.analysis.figure import FigureError, new_figure, save_figure
from ssmjax.analysis.flops import format_flops
from ssmjax.atomic import replacing
from ssmjax.terminal import printable

_HEADINGS = ("model", "regime", "tokens")  # Columns of words; after them comes the main metric.
_NUMBERS = (
    "points",
    "FLOPs",
    "fewer %",
    "images/s",
    "speed-up",
    "parameters",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One model in the results. The first row with regime "dense" is what the others stand beside.

    Attributes:
        name: such as "vim_tiny_patch16_224" or "previous, compact".
        regime: how the weights came about: "dense", "zero-shot", "fine-tuned" or "from scratch";
            behind it perhaps ", raw" (not averaged) and ", best epoch".
        tokens: image tokens at first and after each stage, such as (64, 45, 32).
        accuracy: the main metric, such as top-1, 0 to 1.
        flops: multiply-adds of one image, both directions: `ssmjax.flops(model).total`.
        parameters: `ssmjax.analysis.flops.count_parameters(model)`.
        images_per_second: measured, or None.
        speedup: images per second over the dense model's, measured side by side, or None.
    """

    name: str
    regime: str
    tokens: tuple[int, ...]
    accuracy: float
    flops: int
    parameters: int
    images_per_second: float | None = None
    speedup: float | None = None


def print_table(rows: Sequence[Row], console: Console, heading: str = "top-1 %") -> None:
    """Print the results; differences and savings are against the dense row, where there is one.

    It fits 80 columns: the words of a row stand below each other, and what pruning never changes,
    the number of parameters, is left to the files.
    """
    print_rows(
        (_HEADINGS[0], heading, *_NUMBERS[:-1]),
        (
            (name, f"{regime} {tokens}", *numbers)
            for name, regime, tokens, *numbers, _ in _cells(rows)
        ),
        console,
    )


def print_rows(
    headings: Sequence[str], rows: Iterable[tuple[str, str, *tuple[str, ...]]], console: Console
) -> None:
    """Print rows of a name, what stands below it, and the numbers; a heading has the first two."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, below, *numbers in rows:
        table.add_row(Text(printable(name)).append(f"\n  {below}", style="dim"), *numbers)
    console.print(table)


def write_table(rows: Sequence[Row], folder: Path, heading: str = "top-1 %") -> None:
    """Write results.json and results.csv (plain numbers) and results.md (all of it for people).

    The folder is created when missing; each file there is replaced in one step.

    Raises:
        OSError: the folder cannot be written; no half-written file stays behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = [dataclasses.asdict(row) | {"tokens": _arrows(row)} for row in rows]
    _write(folder / "results.json", json.dumps(records, indent=2) + "\n")

    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    _write(folder / "results.csv", text.getvalue())

    _write(
        folder / "results.md",
        markdown((*_HEADINGS, heading, *_NUMBERS), _cells(rows), words=len(_HEADINGS)),
    )


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """A table in Markdown; so many of the first columns hold words, the others numbers."""
    rule = ["---"] * words + ["--:"] * (len(headings) - words)
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in (headings, rule, *rows))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


def write_curve(
    history: Sequence[dict[str, Any]],
    path: Path,
    metric: str = "accuracy",
    heading: str = "top-1 %",
) -> None:
    """Draw training loss and, where it was measured, the main metric against steps.

    Args:
        history: the log's records, each with `step` and any of `loss` and `metric` (0 to 1).
        path: of the PNG, replaced in one step.
        metric: the main one.
        heading: what people call it, in per cent.

    Raises:
        FigureError: matplotlib is not installed, or nothing has been logged.
        OSError: the file cannot be written.
    """
    losses, scores = (
        [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
        for key in ("loss", metric)
    )
    if not losses:
        raise FigureError("There is no curve to draw: no step with a loss has been logged.")
    figure = new_figure()
    left = figure.add_subplot(xlabel="step")
    left.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1.2)
    left.set_ylabel("training loss", color="tab:blue")
    left.grid(alpha=0.25)
    left.spines["top"].set_visible(False)
    if scores:
        steps, values = zip(*scores, strict=True)
        right = left.twinx()
        right.plot(steps, [100 * v for v in values], "o-", color="tab:orange", markersize=4)
        right.set_ylabel(f"evaluation {heading}", color="tab:orange")
        right.spines["top"].set_visible(False)
    save_figure(figure, path)


def _cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Each row as the texts under the headings."""
    dense = next((row for row in rows if row.regime == "dense"), None)
    for row in rows:
        beside = None if row is dense else dense
        yield (
            row.name,
            row.regime,
            _arrows(row),
            f"{100 * row.accuracy:.2f}",
            f"{100 * (row.accuracy - beside.accuracy):+.2f}" if beside else "",
            format_flops(row.flops),
            f"{100 * (1 - row.flops / beside.flops):.1f}" if beside else "",
            "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
            "" if row.speedup is None else f"{row.speedup:.2f}x",
            f"{row.parameters:,}",
        )


def _arrows(row: Row) -> str:
    """The tokens as "64>45>32"."""
    return ">".join(map(str, row.tokens))


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
