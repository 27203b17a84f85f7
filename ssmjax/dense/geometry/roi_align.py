"""RoIAlign (He et al. 2017): a fixed number of bins of every box, from the level that fits it."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from kernels.array_types import Array
from ssmjax.dense.geometry.boxes import area

STRIDES = (4, 8, 16, 32)
FINEST = 56  # Pixels; a square box with a side of twice this is on the second level.


class Bins(NamedTuple):
    """The bins of boxes along one axis, each the mean of evenly spread samples.

    Attributes:
      first: [...,bins] of the first sample, in cells from the centre of the map's first one.
      step: [...,1] cells from sample to sample, 1 at most.
      count: [...,1] samples of a bin; 0 of a box without extent.
      size: [...,1] cells of the map.
    """

    first: jax.Array
    step: jax.Array
    count: jax.Array
    size: jax.Array


def level_of(boxes: jax.Array, levels: int = len(STRIDES)) -> jax.Array:
    """Level [...] int32, from 0, of boxes [...,4], by their area."""
    side = jnp.sqrt(area(boxes)) / FINEST + 1e-6
    # Compared, not floor(log2(side)), which rounds at powers of 2.
    bounds = jnp.asarray([2.0**level for level in range(1, levels)])
    return jnp.sum(side[..., None] >= bounds, axis=-1, dtype=jnp.int32)


def roi_align(
    maps: Sequence[Float[Array, "B _ _ channels"]],
    boxes: Float[Array, "B boxes 4"],
    valid: Bool[Array, "B boxes"],
    bins: int,
    strides: Sequence[int] = STRIDES,
) -> Float[Array, "B boxes {bins} {bins} channels"]:
    """Mean of bilinear samples in each of `bins` x `bins` parts of a box.

    A bin of l cells has ceil(l) samples along an axis, evenly spread, so that it has none further
    apart than a cell. A sample beyond the map by more than a cell counts as 0; a box without width
    or height gives zeros. Gradients flow to the maps, not to the boxes.

    Work: gathers, one after another, each of as many entries as the result, which is the memory
    they need. The box whose bins cover most cells decides how many: (h + 1) (w + 1) where they
    have h x w, which is 25 for a square at the end of its level.

    Args:
      maps: [B,H,W,C] of each level.
      boxes: [B,R,4] in pixels.
      valid: [B,R] bool; the others give zeros.
      bins: per axis.
      strides: pixels from cell to cell, of each level.

    Returns:
      [B,R,bins,bins,C] of the maps' dtype, summed in float32 (or wider).
    """
    shapes = np.array([level.shape[1:3] for level in maps], np.int32)
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))[:-1]]).astype(np.int32)
    boxes = lax.stop_gradient(jnp.where(valid[..., None], boxes, 0)).astype(jnp.float32)
    level = level_of(boxes, len(maps))
    cells = boxes / jnp.asarray(strides, jnp.float32)[level][..., None]
    rows, columns = (
        bins_of(cells[..., axis], cells[..., axis + 2], jnp.asarray(shapes)[level, 1 - axis], bins)
        for axis in (1, 0)
    )
    table = jnp.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in maps], axis=1)
    return _mean(table.shape[1], table, jnp.asarray(offsets)[level], rows, columns)


def bins_of(low: jax.Array, high: jax.Array, size: jax.Array | int, bins: int) -> Bins:
    """The bins of boxes along an axis; see `roi_align`.

    Args:
      low: [...] where each box begins, in cells from the map's border.
      high: [...] where it ends.
      size: [...] cells of its map.
      bins: of each box.
    """
    length = (high - low)[..., None]
    count = jnp.ceil(length / bins)
    count -= (count - 1) * bins >= length  # The division may have rounded up.
    step = length / bins / jnp.maximum(count, 1)
    first = low[..., None] - 0.5 + jnp.arange(bins) * (length / bins) + step / 2
    return Bins(first, step, count, jnp.asarray(size)[..., None])


def weights_of(bins: Bins, cells: jax.Array) -> jax.Array:
    """The share that cells have in bins: of each sample what bilinear interpolation gives them.

    Args:
      bins: of boxes.
      cells: whole numbers that broadcast to [...,bins].
    """
    # Samples are more than half a cell apart, if there are several.
    near = jnp.floor((cells - bins.first) / jnp.where(bins.count > 1, bins.step, jnp.inf))
    total = jnp.zeros((), bins.first.dtype)
    for sample in (near + offset for offset in range(-2, 4)):
        position = bins.first + sample * bins.step
        there = (sample >= 0) & (sample < bins.count) & (position >= -1) & (position <= bins.size)
        distance = jnp.abs(jnp.clip(position, 0, bins.size - 1) - cells)
        total += jnp.where(there, jnp.maximum(1 - distance, 0), 0)
    return total / jnp.maximum(bins.count, 1)


def _cells_of(bins: Bins) -> tuple[jax.Array, jax.Array]:
    """The first cell [...,bins] that each bin has samples in, and the most cells [...] of one."""
    last = bins.first + (bins.count - 1) * bins.step
    begin, end = (
        jnp.floor(jnp.clip(sample, 0, bins.size - 1)).astype(jnp.int32)
        for sample in (bins.first, last)
    )
    return begin, jnp.max(end - begin, axis=-1) + 2


# Written out for its gradient: a loop's own would hold a copy of the table for each step.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean(
    length: int, table: jax.Array, offsets: jax.Array, rows: Bins, columns: Bins
) -> jax.Array:
    """[B,length,C] to [B,R,bins,bins,C], of levels that begin at `offsets` [B,R]."""
    number, pair = _pairs(offsets, rows, columns)

    def add(tap, total):
        index, weights = pair(tap)
        return total + weights * jax.vmap(lambda table, index: table[index])(table, index)

    wide = jnp.result_type(table, rows.first)
    shape = (*rows.first.shape, columns.first.shape[-1], table.shape[-1])
    return lax.fori_loop(0, number, add, jnp.zeros(shape, wide)).astype(table.dtype)


def _forward(length, table, *where):
    return _mean(length, table, *where), where


def _backward(length, where, gradient):
    number, pair = _pairs(*where)

    def scatter(tap, total):
        index, weights = pair(tap)
        return jax.vmap(lambda total, *to: total.at[to[0]].add(to[1]))(
            total, index, weights * gradient
        )

    wide = jnp.result_type(gradient, where[1].first)
    total = jnp.zeros((len(gradient), length, gradient.shape[-1]), wide)
    return lax.fori_loop(0, number, scatter, total).astype(gradient.dtype), None, None, None


_mean.defvjp(_forward, _backward)


def _pairs(offsets: jax.Array, rows: Bins, columns: Bins):
    """How many pairs of a row and a column the bins of a box have at most, and what gives one.

    The latter: number to the cells [B,R,bins,bins] of a table, and their weights [...,1].
    """
    (top, tall), (left, wide) = _cells_of(rows), _cells_of(columns)
    numbers = tall * wide

    def pair(tap):
        row, column = top + (tap // wide)[..., None], left + (tap % wide)[..., None]
        weights = weights_of(rows, row)[..., :, None] * weights_of(columns, column)[..., None, :]
        weights = jnp.where((tap < numbers)[..., None, None], weights, 0)
        row, column = jnp.minimum(row, rows.size - 1), jnp.minimum(column, columns.size - 1)
        start = offsets[..., None] + row * columns.size
        return start[..., :, None] + column[..., None, :], weights[..., None]

    return numbers.max(initial=0), pair
