"""The columns of a comparison's table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssmjax.analysis.flops import format_flops
from train.compare.lines import Line, mean_and_deviation


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


def heads_were_fresh(found: Sequence[Line]) -> bool:
    """Whether dense models were trained too, which only those with fresh heads are."""
    return any(line.fine_tuned for line in found if line.key.keep_ratio is None)


def columns_of(found: Sequence[Line]) -> list[Column]:
    """Those that have something to say of these lines, at least one."""
    score = found[0].facts.heading.removesuffix(" %")
    if heads_were_fresh(found):
        scores = _score_columns(
            "untrained",
            "trained",
            f"untrained: {score} before training, each seed with a fresh head of its own; mean ± "
            "sample standard deviation over the seeds.",
            f"trained: {score} after the same training for all.",
            "points: against the dense model, untrained or trained.",
        )
    else:
        scores = _score_columns(
            "zero-shot",
            "fine-tuned",
            f"zero-shot: {score} before any fine-tuning; of a dense model, as it was given.",
            f"fine-tuned: mean ± sample standard deviation of {score} over the seeds, all after "
            "the same fine-tune.",
            "points: against the dense model as it was given.",
        )
    every = (*_ENTRY, *scores, *_COST)
    return [column for column in every if any(map(column.cell, found))]


def _score_columns(
    before: str, after: str, of_before: str, of_after: str, of_points: str
) -> tuple[Column, ...]:
    """Main metric before and after training: what they are called, and their notes."""
    return (
        Column(f"{before} %", lambda line: _percent(line.zero_shot), of_before, on_screen=True),
        Column("points", lambda line: _points(line.zero_shot, line.dense and line.dense.zero_shot)),
        Column(f"{after} %", lambda line: _percent(line.fine_tuned), of_after, on_screen=True),
        Column(
            "points",
            lambda line: _points(line.fine_tuned, line.dense and line.dense.accuracy),
            of_points,
            on_screen=True,
        ),
    )


def _percent(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")


def _points(values: Sequence[float], dense: Sequence[float] | None) -> str:
    if not values or not dense:
        return ""
    difference = mean_and_deviation(values)[0] - mean_and_deviation(dense)[0]
    return f"{100 * difference:+.2f}"


def _paper_score(line: Line) -> str:
    mine, dense = line.facts.paper_score, line.dense and line.dense.facts.paper_score
    if mine is None:
        return ""
    return f"{mine:.1f}" + (f" ({mine - dense:+.1f})" if dense is not None else "")


def _flops(count: float | None) -> str:
    return "" if count is None else format_flops(count)


def _fewer(line: Line, flops: str) -> str:
    """Than the dense model's, in per cent, by that field of the records."""
    mine, dense = (getattr(of.facts, flops) for of in (line, line.dense or line))
    return "" if line.dense is None or mine is None else f"{100 * (1 - mine / dense):.1f}"


def _rate(value: float | None) -> str:
    """Of slow models too, two digits."""
    return _number("{:,.1f}" if value is None or value >= 1 else "{:.2g}", value)


def _number(pattern: str, value: float | None) -> str:
    return "" if value is None else pattern.format(value)


_ENTRY = (
    Column("backbone", lambda line: line.key.backbone, words=True),
    Column("method", lambda line: line.key.method, words=True),
    Column("keep", lambda line: line.key.kept, "keep: share of the tokens, after blocks.", True),
    Column("tokens", lambda line: line.facts.tokens, words=True),
)
_COST = (
    Column("seeds", lambda line: str(len(line.fine_tuned) or "")),
    Column(
        "FLOPs",
        lambda line: _flops(line.facts.flops),
        "FLOPs: multiply-adds of one image, every scan direction counted.",
    ),
    Column("fewer %", lambda line: _fewer(line, "flops"), on_screen=True),
    Column("backbone FLOPs", lambda line: _flops(line.facts.backbone_flops)),
    Column("fewer %", lambda line: _fewer(line, "backbone_flops")),
    Column(
        "images/s",
        lambda line: _rate(line.facts.images_per_second),
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
        _paper_score,
        "published: the papers' own numbers, in brackets against their dense model.",
    ),
    Column("published FLOPs", lambda line: _number("{:.2f} G", line.facts.paper_gflops)),
    Column(
        "FLOPs as published",
        lambda line: _flops(line.facts.paper_gflops and line.facts.published_flops),
        "FLOPs as published: ours counted as the papers do, with one direction of Vim's two.",
    ),
    Column("published speed-up", lambda line: _number("{:.2f}x", line.facts.paper_speedup)),
)
