"""What a conversion table is made of: entries, and the layouts of PyTorch and of JAX."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of an official state_dict and its place here.

    Attributes:
      theirs: name in the official state_dict.
      ours: dotted path of the parameter in the model.
      layout: from PyTorch's layout to ours.
      block: index along the leading axis of a parameter stacked over blocks, or None.
    """

    theirs: str
    ours: str
    layout: Callable[[np.ndarray], np.ndarray]
    block: int | None = None


def same(w: np.ndarray) -> np.ndarray:
    """The layouts agree."""
    return w


def linear(w: np.ndarray) -> np.ndarray:
    """(out, in) to (in, out)."""
    return w.T


def conv1d_depthwise(w: np.ndarray) -> np.ndarray:
    """(channels, 1, taps) to (taps, channels)."""
    return w[:, 0].T


def conv2d(w: np.ndarray) -> np.ndarray:
    """(out, in, height, width) to (height, width, in, out)."""
    return w.transpose(2, 3, 1, 0)
