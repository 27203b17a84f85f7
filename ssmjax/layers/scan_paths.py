"""The four serpentine paths along which PlainMamba reads its grid of tokens."""

import functools

import numpy as np

START, RIGHT, LEFT, UP, DOWN = range(5)


@functools.lru_cache(maxsize=64)
def scan_paths(H: int, W: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders and moves of the four paths over a grid, as the official layer has them.

    The first goes along the rows from the top left and turns at each end, the second is the first
    walked backwards; the third and fourth do the same along the columns.

    Args:
      H: rows of the grid.
      W: columns of the grid.

    Returns:
      order: [4,H*W] int32, the raster index visited at each step.
      direction: [4,H*W] int32, the move that led there: START, RIGHT, LEFT, UP or DOWN.
      Both are cached and read-only.
    """
    raster = np.arange(H * W, dtype=np.int32).reshape(H, W)
    rows, columns = _serpentine(raster), _serpentine(raster.T)
    order = np.stack([rows, rows[::-1], columns, columns[::-1]])
    down, right = np.diff(order // W, axis=1), np.diff(order % W, axis=1)
    moves = np.select([right > 0, right < 0, down < 0, down > 0], [RIGHT, LEFT, UP, DOWN])
    direction = np.pad(moves, ((0, 0), (1, 0)), constant_values=START).astype(np.int32)
    order.flags.writeable = direction.flags.writeable = False
    return order, direction


def _serpentine(raster: np.ndarray) -> np.ndarray:
    """Row by row, every second row backwards."""
    turned = raster.copy()
    turned[1::2] = turned[1::2, ::-1]
    return turned.ravel()
