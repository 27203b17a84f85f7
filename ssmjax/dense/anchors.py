"""Anchors: boxes of fixed sizes and ratios at every cell of every level."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def anchors(
    grid_shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    scales: Sequence[float],
    ratios: Sequence[float],
) -> list[np.ndarray]:
    """All anchors of each level; constants, they depend on the sizes only.

    Those of the cell in row i and column j are centred at (j * stride, i * stride), its corner.

    Args:
      grid_shapes: (H, W) of each level.
      strides: pixels from cell to cell, of each level.
      scales: sides of the square anchors, in strides.
      ratios: height over width.

    Returns:
      For each level [H*W*len(ratios)*len(scales),4] float32: cells in raster order, in a cell
      ratio by ratio, each with all scales.
    """
    roots = np.sqrt(np.asarray(ratios, np.float64))[:, None]
    scaled = np.asarray(scales, np.float64)
    size = np.stack([scaled / roots, scaled * roots], axis=-1).reshape(-1, 2)
    base = np.concatenate([-size, size], axis=-1) / 2  # In strides.
    levels = []
    for (H, W), stride in zip(grid_shapes, strides, strict=True):
        y, x = np.mgrid[:H, :W].reshape(2, -1, 1, 1)
        cells = np.concatenate([x, y, x, y], axis=-1)
        levels.append(((cells + base) * stride).reshape(-1, 4).astype(np.float32))
    return levels


def valid(
    padded_shape: jax.Array,
    grid_shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    per_cell: int,
) -> list[jax.Array]:
    """Whether an anchor's cell begins inside the image: training leaves out the others.

    Args:
      padded_shape: [2] integers, (height, width) that the image itself was padded to, which may
        be less than its batch was.
      grid_shapes: as in `anchors`.
      strides: as in `anchors`.
      per_cell: anchors of a cell, len(ratios) * len(scales).

    Returns:
      For each level [H*W*per_cell] bool.
    """
    levels = []
    for (H, W), stride in zip(grid_shapes, strides, strict=True):
        rows = jnp.arange(H) * stride < padded_shape[0]
        columns = jnp.arange(W) * stride < padded_shape[1]
        levels.append(jnp.repeat((rows[:, None] & columns).ravel(), per_cell))
    return levels
