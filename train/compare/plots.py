"""Accuracy against FLOPs and against measured speed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ssmjax.analysis.figure import new_figure, save_figure
from train.compare.lines import Line, mean_and_deviation

_MARKERS = "osD^v<>P"  # By backbone; colours are by method, black where nothing is pruned.


def write_plots(lines: Sequence[Line], stem: Path) -> None:
    """Draw `STEM_flops.png` and `STEM_speed.png`, each where it has something to show.

    A method's ratios are joined, with one standard deviation up and down; hollow marks are
    published accuracies, at the FLOPs and speeds found here.

    Raises:
      ssmjax.analysis.figure.FigureError: matplotlib is not installed.
      OSError: the files cannot be written.
    """
    axes = {
        "flops": ("FLOPs (multiply-adds of one image)", lambda line: line.facts.flops),
        "speed": ("images/s", lambda line: line.facts.images_per_second),
    }
    for name, (label, x_of) in axes.items():
        drawn = [line for line in lines if x_of(line) and (line.accuracy or _published(line))]
        if drawn:
            _draw(drawn, x_of, label, stem.with_name(f"{stem.name}_{name}.png"))


def _draw(lines: Sequence[Line], x_of: Callable[[Line], float], label: str, path: Path) -> None:
    figure = new_figure()
    axes = figure.add_subplot(xlabel=label, ylabel=lines[0].facts.heading)
    axes.xaxis.set_major_formatter(_with_prefix)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    series: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        series.setdefault((line.key.backbone, line.key.method), []).append(line)
    backbones = list(dict.fromkeys(backbone for backbone, _ in series))
    pruning = [line.key.method for line in lines if line.key.keep_ratio is not None]
    colors = {method: f"C{number}" for number, method in enumerate(dict.fromkeys(pruning))}
    for (backbone, method), members in series.items():
        look = {
            "color": colors.get(method, "black"),
            "marker": _MARKERS[backbones.index(backbone) % len(_MARKERS)],
            "capsize": 3,
        }
        title = f"{backbone}, {method}" if len(set(backbones)) > 1 else method
        measured = sorted((line for line in members if line.accuracy), key=x_of)
        if measured:
            found = [mean_and_deviation(line.accuracy) for line in measured]
            axes.errorbar(
                [x_of(line) for line in measured],
                [100 * mean for mean, _ in found],
                [100 * (deviation or 0) for _, deviation in found],
                label=title,
                **look,
            )
        published = sorted((line for line in members if _published(line)), key=x_of)
        if published:
            axes.errorbar(
                [x_of(line) for line in published],
                [line.facts.paper_score for line in published],
                label=f"{title} (published)",
                markerfacecolor="none",
                linestyle="dotted",
                **look,
            )
    for text in figure.legend(loc="outside right upper", fontsize="small").get_texts():
        text.set_parse_math(False)  # A "$" in a name is no formula.
    save_figure(figure, path)


def _published(line: Line) -> bool:
    return line.facts.paper_score is not None


def _with_prefix(value: float, _) -> str:
    """5076000000 as "5.076 G"."""
    for size, prefix in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:g}{prefix}"
    return f"{value:g}"
