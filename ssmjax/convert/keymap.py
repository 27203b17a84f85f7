"""What a conversion table is made of: entries, and the layouts of PyTorch and of JAX."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssmjax.models.config import BackboneConfig


class Layout(NamedTuple):
    """How the axes of an array lie here and in PyTorch: two views, each undoing the other."""

    ours: Callable[[np.ndarray], np.ndarray]  # From theirs to ours.
    theirs: Callable[[np.ndarray], np.ndarray]  # From ours to theirs.


# The layouts agree.
SAME = Layout(lambda w: w, lambda w: w)
# (out, in) and (in, out).
LINEAR = Layout(np.transpose, np.transpose)
# (out, in, height, width) and (height, width, in, out).
CONV2D = Layout(lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))
# (channels, 1, taps) and (taps, channels).
DEPTHWISE_1D = Layout(lambda w: w[:, 0].T, lambda w: w.T[:, None])
# (channels, 1, height, width) and (height, width, channels).
DEPTHWISE_2D = Layout(lambda w: w[:, 0].transpose(1, 2, 0), lambda w: w.transpose(2, 0, 1)[:, None])


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of an official state_dict and its place here.

    Attributes:
      theirs: name in the official state_dict.
      ours: dotted path of the variable in the model.
      layout: between PyTorch's axes and ours.
      block: index along the leading axis of a variable stacked over blocks, or None.
      positions: of position embeddings, the config whose grid they are for; None for all other
        arrays.
    """

    theirs: str
    ours: str
    layout: Layout
    block: int | None = None
    positions: BackboneConfig | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """How the official code of one family of models stores its weights.

    Attributes:
      table: from a config to every entry of the state_dict, in official order.
      wrap: what a checkpoint file holds around a state_dict.
      head: official name of an array that tells the number of classes.
      per_class: how many of its values each class has.
      refused: names that tell a variant which is not built here, and what to say of each.
    """

    table: Callable[[Any], list[Entry]]
    wrap: Callable[[Mapping[str, Any]], dict[str, Any]]
    head: str
    per_class: int = 1
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


def openmmlab_file(state: Mapping[str, Any]) -> dict[str, Any]:
    """What mmcv's runners keep around a state_dict."""
    return {"meta": {}, "state_dict": state}


def linear(
    theirs: str, ours: str, layout: Layout = LINEAR, block: int | None = None
) -> list[Entry]:
    """The entries of a linear layer with bias, or by another layout of such a convolution."""
    return [
        Entry(f"{theirs}.weight", f"{ours}.kernel", layout, block),
        Entry(f"{theirs}.bias", f"{ours}.bias", SAME, block),
    ]


def conv(theirs: str, ours: str) -> list[Entry]:
    """The entries of a convolution with bias, transposed or not.

    In PyTorch the axes of a transposed one are (in, out, ...), and here too the other way about.
    """
    return linear(theirs, ours, CONV2D)


def norm(theirs: str, ours: str, block: int | None = None) -> list[Entry]:
    """The entries of a layer norm."""
    return [
        Entry(f"{theirs}.weight", f"{ours}.scale", SAME, block),
        Entry(f"{theirs}.bias", f"{ours}.bias", SAME, block),
    ]


def batch_norm(theirs: str, ours: str) -> list[Entry]:
    """The entries of a `ssmjax.layers.norm.BatchNorm`."""
    names = {"running_mean": "mean", "running_var": "var", "num_batches_tracked": "count"}
    statistics = [Entry(f"{theirs}.{a}", f"{ours}.{b}", SAME) for a, b in names.items()]
    return norm(theirs, ours) + statistics


def conv_norm(theirs: str, their_norm: str, ours: str, layout: Layout = CONV2D) -> list[Entry]:
    """The entries of a convolution without bias and the batch norm after it."""
    kernel = Entry(f"{theirs}.weight", f"{ours}.conv.kernel", layout)
    return [kernel, *batch_norm(their_norm, f"{ours}.norm")]


def projections(theirs: str, ours: str, block: int, end: str = "") -> list[Entry]:
    """The entries of a `ssmjax.layers.ssm.SelectiveSSM` that make its inputs from tokens.

    Args:
      theirs, ours: where it stands.
      block: which it is of.
      end: what the official names of its parts end in.
    """
    return [
        Entry(f"{theirs}.x_proj{end}.weight", f"{ours}.x_proj.kernel", LINEAR, block),
        Entry(f"{theirs}.dt_proj{end}.weight", f"{ours}.dt_kernel", LINEAR, block),
        Entry(f"{theirs}.dt_proj{end}.bias", f"{ours}.dt_bias", SAME, block),
    ]
