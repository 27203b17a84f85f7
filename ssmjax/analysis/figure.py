"""Figures by matplotlib, which is an extra."""

from pathlib import Path
from typing import Any

from ssmjax.atomic import replacing


class FigureError(RuntimeError):
    """Why a figure was not drawn: a sentence for people."""


def new_figure() -> Any:
    """An empty `matplotlib.figure.Figure`.

    Raises:
        FigureError: matplotlib is not installed.
    """
    try:
        # In the function: matplotlib loads slowly.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FigureError(
            "Nothing was drawn: that needs matplotlib (pip install 'ssmjax[plots]')."
        ) from error
    # A Figure of its own, without pyplot, draws into memory and never looks for a screen.
    return Figure(figsize=(7, 4), dpi=150, layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, replaced in one step."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
