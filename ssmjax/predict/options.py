"""What the command is asked for, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Options:
    """Say what photos show, and draw which patches the model kept."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Photos of any usual format and size."""
    weights: Path
    """Weight file, as `train.finetune` and `ssmjax.convert` write them, or the workdir of a run."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model, to be sure; the weight file knows it."""
    top: int = 5
    """How many classes or objects to print for each photo."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="OUT.png")] = None
    """PNG to write: each photo, what was found on it, and per pruning stage the patches kept."""
    after_blocks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="BLOCK ...")] = ()
    """Prune after these blocks, counted from 1, instead of as the weight file says."""
    keep_ratio: Annotated[float | None, tyro.conf.arg(metavar="RATIO")] = None
    """Share of the patches kept at each of them."""


Row = tuple[str, str]  # A thing that a photo shows, and how much of it or how surely.


class Answer(NamedTuple):
    """What photos show.

    Attributes:
      headings: of the two columns of rows.
      rows: of each photo, the first row being the main one; at most as many as are asked for.
      picture: of all photos and what is found on them; None where none is asked for.
    """

    headings: Row
    rows: Sequence[Sequence[Row]]
    picture: Image.Image | None
