"""Anchors: boxes of fixed sizes and ratios at every cell of every level of a feature pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Anchors:
    """Which anchors there are; where exactly depends on the grids (H, W) of the levels.

    Attributes:
      strides: pixels from cell to cell, of each level.
      scales: sides of the square anchors, in strides.
      ratios: height over width.
    """

    strides: Sequence[int]
    scales: Sequence[float]
    ratios: Sequence[float]

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.ratios) * len(self.scales)

    def boxes(self, grids: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """All anchors; constants, they depend on the sizes only.

        Those of the cell in row i and column j are centred at (j * stride, i * stride), its corner.

        Returns:
          For each level [H*W*per_cell,4] float32: cells in raster order, in a cell ratio by ratio,
          each with all scales.
        """
        roots = np.sqrt(np.asarray(self.ratios, np.float64))[:, None]
        scaled = np.asarray(self.scales, np.float64)
        size = np.stack([scaled / roots, scaled * roots], axis=-1).reshape(-1, 2)
        base = np.concatenate([-size, size], axis=-1) / 2  # In strides.
        levels = []
        for (H, W), stride in zip(grids, self.strides, strict=True):
            y, x = np.mgrid[:H, :W].reshape(2, -1, 1, 1)
            cells = np.concatenate([x, y, x, y], axis=-1)
            levels.append(((cells + base) * stride).reshape(-1, 4).astype(np.float32))
        return levels

    def valid(self, padded_shape: jax.Array, grids: Sequence[tuple[int, int]]) -> list[jax.Array]:
        """Whether an anchor's cell begins inside the image: training leaves out the others.

        Args:
          padded_shape: [2] integers, (height, width) that the image itself was padded to, which may
            be less than its batch was.
          grids: (H, W) of each level.

        Returns:
          For each level [H*W*per_cell] bool, in the order of `boxes`.
        """
        levels = []
        for (H, W), stride in zip(grids, self.strides, strict=True):
            rows = jnp.arange(H) * stride < padded_shape[0]
            columns = jnp.arange(W) * stride < padded_shape[1]
            levels.append(jnp.repeat((rows[:, None] & columns).ravel(), self.per_cell))
        return levels
