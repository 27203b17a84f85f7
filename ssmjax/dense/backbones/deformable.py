"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159)."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.precision import widened

Grids = Sequence[tuple[int, int]]


class DeformableAttention(nnx.Module):
    """Each query looks at a few points around its own place, in each head and on each level."""

    def __init__(
        self, features: int, heads: int, levels: int, points: int, *, dtype, rngs: nnx.Rngs
    ):
        xavier, zeros = nnx.initializers.xavier_uniform(), nnx.initializers.zeros_init()
        places = heads * levels * points
        linear = partial(nnx.Linear, features, rngs=rngs)
        self.value = linear(features, dtype=dtype, kernel_init=xavier)
        self.output = linear(features, dtype=dtype, kernel_init=xavier)
        # Where to look, and how much to take: in float32 whatever the compute dtype.
        rings = _rings(heads, levels, points)
        self.offsets = linear(2 * places, kernel_init=zeros, bias_init=lambda *_: rings)
        self.weights = linear(places, kernel_init=zeros)
        self.heads, self.points = heads, points

    def __call__(
        self, queries: jax.Array, references: np.ndarray, values: jax.Array, grids: Grids
    ) -> jax.Array:
        """Attend.

        Args:
          queries: [B,Q,D] in float32 (or wider).
          references: [Q,2], the place (x, y) of each query, in parts of the image.
          values: [B,S,D], the cells of all levels, one level after the other in raster order.
          grids: (h, w) of each level.

        Returns:
          [B,Q,D] of the compute dtype.
        """
        B, Q, _ = queries.shape
        levels = len(grids)
        shape = (B, Q, self.heads, levels, self.points)
        sizes = np.array([(w, h) for h, w in grids], np.float32)
        offsets = self.offsets(queries).reshape(*shape, 2) / sizes[:, None]
        locations = jnp.asarray(references, offsets.dtype)[:, None, None, None] + offsets
        weights = self.weights(queries).reshape(B, Q, self.heads, levels * self.points)
        weights = jax.nn.softmax(weights).reshape(shape)
        cells = widened(self.value(values).reshape(B, values.shape[1], self.heads, -1))
        return self.output(sample(cells, locations, weights, tuple(grids)))


def sample(
    values: jax.Array, locations: jax.Array, weights: jax.Array, grids: tuple[tuple[int, int], ...]
) -> jax.Array:
    """Weighted sums of bilinear samples; beyond the edge of a level all is zero.

    Args:
      values: [B,S,M,d], the cells of all levels, one level after the other, by heads.
      locations: [B,Q,M,levels,points,2], (x, y) in parts of the image: a level's cell i has its
        centre at (i + 0.5) / size.
      weights: [B,Q,M,levels,points].
      grids: (h, w) of each level.

    Returns:
      [B,Q,M*d] of the values' dtype.
    """
    # A gradient gathers again, and keeps no gathered cell.
    return jax.checkpoint(partial(_sample, grids=grids))(values, locations, weights)


def _sample(values, locations, weights, *, grids):
    B, Q, M = weights.shape[:3]
    starts = np.cumsum([0, *(h * w for h, w in grids)], dtype=np.int32)[:-1, None]
    sizes = np.array([(w, h) for h, w in grids], np.int32)[:, None]
    widths = sizes[..., 0]
    places = locations * sizes.astype(locations.dtype) - 0.5
    table = values.swapaxes(1, 2)
    total = jnp.zeros((B, M, Q, values.shape[-1]), values.dtype)
    for corner in np.ndindex(2, 2):
        cell = jnp.floor(places) + np.array(corner, np.float32)
        inside = jnp.all((cell >= 0) & (cell < sizes), axis=-1)
        share = jnp.prod(1 - jnp.abs(places - cell), axis=-1) * weights
        share = jnp.where(inside, share, 0)
        x, y = jnp.moveaxis(jnp.clip(cell, 0, sizes - 1).astype(jnp.int32), -1, 0)
        index = (starts + y * widths + x).swapaxes(1, 2).reshape(B, M, -1, 1)
        cells = jnp.take_along_axis(table, index, axis=2).reshape(B, M, Q, -1, total.shape[-1])
        total += jnp.sum(cells * share.swapaxes(1, 2).reshape(B, M, Q, -1, 1), axis=3)
    return total.swapaxes(1, 2).reshape(B, Q, -1)


def centres(grids: Grids) -> np.ndarray:
    """[S,2] (x, y) centres of the cells of all levels, in parts of the image; float64."""
    levels = []
    for h, w in grids:
        y, x = np.mgrid[:h, :w].reshape(2, -1)
        levels.append(np.stack([(x + 0.5) / w, (y + 0.5) / h], axis=1))
    return np.concatenate(levels)


def _rings(heads: int, levels: int, points: int) -> jax.Array:
    """[heads*levels*points*2] offsets at first: each head looks one way, point by point farther."""
    angle = 2 * math.pi * np.arange(heads) / heads
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    way /= np.abs(way).max(axis=1, keepdims=True)
    steps = np.arange(1, points + 1)[:, None] * way[:, None, None]
    return jnp.asarray(np.broadcast_to(steps, (heads, levels, points, 2)).ravel(), jnp.float32)
