"""RoIAlign (He et al. 2017): a fixed number of bins of every box, from the level that fits it."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssmjax.dense.boxes import area

STRIDES = (4, 8, 16, 32)
FINEST = 56  # Pixels; a square box with a side of twice this is on the second level.


class Samples(NamedTuple):
    """Points along one axis that a bin is the mean of.

    Attributes:
      positions: [...,bins,samples] in cells, of the centre of the first cell on, inside the map.
      weights: [...,bins,samples], that sum to 1 for a bin inside the map; 0 for points that are
        not there, or off the map.
    """

    positions: jax.Array
    weights: jax.Array


class _Taps(NamedTuple):
    """Cells [T,R,bins] int32 along one axis that are added, and their weights [T,R,bins]."""

    cells: jax.Array
    weights: jax.Array


def level_of(boxes: jax.Array, levels: int = len(STRIDES)) -> jax.Array:
    """Level [...] int32, from 0, of boxes [...,4], by their area."""
    side = jnp.sqrt(area(boxes)) / FINEST + 1e-6
    # Compared, not floor(log2(side)), which rounds at powers of 2.
    bounds = jnp.asarray([2.0**level for level in range(1, levels)])
    return jnp.sum(side[..., None] >= bounds, axis=-1, dtype=jnp.int32)


def roi_align(
    maps: Sequence[jax.Array],
    boxes: jax.Array,
    valid: jax.Array,
    bins: int,
    samples: int | None,
    strides: Sequence[int] = STRIDES,
) -> jax.Array:
    """Mean of bilinear samples in each of `bins` x `bins` parts of a box.

    A bin of l cells has ceil(l) samples along an axis, evenly spread, but at most `samples`: from
    there on they lie one cell apart in the middle of the bin, which is where results differ from
    the uncapped ones. A sample beyond the map by more than a cell counts as 0; a box without width
    or height gives zeros. Gradients flow to the maps, not to the boxes.

    Work: (samples + 1)^2 gathers, one after another, each of as many entries as the result, which
    is the memory they need.

    Args:
      maps: [H,W,C] of each level.
      boxes: [R,4] in pixels.
      valid: [R] bool; the others give zeros.
      bins: per axis.
      samples: most samples of a bin along an axis. None: what the largest box inside the maps
        needs, so that nothing is capped; slow for large maps.
      strides: pixels from cell to cell, of each level.

    Returns:
      [R,bins,bins,C] of the maps' dtype, summed in float32 (or wider).
    """
    shapes = np.array([level.shape[:2] for level in maps], np.int32)
    if samples is None:
        samples = most_samples(shapes.max(), bins)
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))[:-1]]).astype(np.int32)
    boxes = lax.stop_gradient(jnp.where(valid[:, None], boxes, 0)).astype(jnp.float32)
    level = level_of(boxes, len(maps))
    height, width = jnp.asarray(shapes)[level].T
    cells = boxes / jnp.asarray(strides, jnp.float32)[level][:, None]
    rows = _taps(bin_samples(cells[:, 1], cells[:, 3], height, bins, samples), height)
    columns = _taps(bin_samples(cells[:, 0], cells[:, 2], width, bins, samples), width)
    begin = jnp.asarray(offsets)[level][:, None] + rows.cells * width[:, None]
    table = jnp.concatenate([level.reshape(-1, level.shape[-1]) for level in maps])
    return _sum_of_taps(len(table), table, rows._replace(cells=begin), columns)


def most_samples(size: int, bins: int) -> int:
    """Samples of a bin, along an axis of `size` cells, of the largest box inside the map."""
    return -(-int(size) // bins)


def bin_samples(
    low: jax.Array, high: jax.Array, size: jax.Array | int, bins: int, samples: int
) -> Samples:
    """Where RoIAlign samples along an axis; see `roi_align`.

    Args:
      low: [...] where each box begins, in cells from the map's border.
      high: [...] where it ends.
      size: [...] cells of its map.
      bins: of each box.
      samples: of a bin at most.
    """
    low, length, size = low[..., None, None], (high - low)[..., None, None], _last(size)
    sample = jnp.arange(samples)
    # Sample i is there if the bin is longer than i; not divided, since that might round up.
    present = length > sample * bins
    count = jnp.maximum(present.sum(axis=-1, keepdims=True), 1)
    step = jnp.minimum(length / bins / count, 1)
    middle = low - 0.5 + (jnp.arange(bins)[:, None] + 0.5) * (length / bins)
    positions = middle + (sample - (count - 1) / 2) * step
    inside = (positions >= -1) & (positions <= size)
    return Samples(jnp.clip(positions, 0, size - 1), (present & inside) / count)


def weights_of(samples: Samples, cells: jax.Array) -> jax.Array:
    """[...,bins,n] weights of the `cells` [...,bins,n] in bilinear interpolation, summed."""
    distance = jnp.abs(samples.positions[..., None, :] - cells[..., None])
    return jnp.sum(jnp.maximum(1 - distance, 0) * samples.weights[..., None, :], axis=-1)


def _taps(samples: Samples, size: jax.Array) -> _Taps:
    """Samples no more than a cell apart lie between neighbours: n samples have n + 1 cells."""
    count = samples.positions.shape[-1]
    first = jnp.floor(samples.positions[..., :1]).astype(jnp.int32)
    cells = first + jnp.arange(count + 1, dtype=jnp.int32)
    weights = weights_of(samples, cells)
    return _Taps(*(jnp.moveaxis(x, -1, 0) for x in (jnp.minimum(cells, _last(size) - 1), weights)))


def _last(size: jax.Array | int) -> jax.Array:
    """[...] to [...,1,1]."""
    return jnp.asarray(size)[..., None, None]


# Written out for its gradient: a loop's own would hold a copy of the table for each step.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_taps(cells: int, table: jax.Array, rows: _Taps, columns: _Taps) -> jax.Array:
    """[cells,C] to [R,bins,bins,C]: the weighted sum of all pairs of a row and a column."""
    R, bins = rows.cells.shape[1:]

    def add(tap, total):
        index, weights = _pair(tap, rows, columns)
        return total + weights * table[index]

    wide = jnp.result_type(table, rows.weights)
    total = jnp.zeros((R, bins, bins, table.shape[-1]), wide)
    return lax.fori_loop(0, _pairs(rows, columns), add, total).astype(table.dtype)


def _forward(cells, table, rows, columns):
    return _sum_of_taps(cells, table, rows, columns), (rows, columns)


def _backward(cells, taps, gradient):
    rows, columns = taps

    def scatter(tap, total):
        index, weights = _pair(tap, rows, columns)
        return total.at[index].add(weights * gradient)

    wide = jnp.result_type(gradient, rows.weights)
    total = jnp.zeros((cells, gradient.shape[-1]), wide)
    total = lax.fori_loop(0, _pairs(rows, columns), scatter, total)
    return total.astype(gradient.dtype), None, None


_sum_of_taps.defvjp(_forward, _backward)


def _pairs(rows: _Taps, columns: _Taps) -> int:
    return len(rows.cells) * len(columns.cells)


def _pair(tap, rows: _Taps, columns: _Taps) -> tuple[jax.Array, jax.Array]:
    """Cells [R,bins,bins] of the table, and weights [R,bins,bins,1], of one pair."""
    row, column = tap // len(columns.cells), tap % len(columns.cells)
    index = rows.cells[row][:, :, None] + columns.cells[column][:, None, :]
    weights = rows.weights[row][:, :, None] * columns.weights[column][:, None, :]
    return index, weights[..., None]
