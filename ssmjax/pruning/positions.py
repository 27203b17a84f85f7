"""Where kept tokens stand on the grid (H, W), and which of them a hole of the grid shows.

`positions` are [B,K] raster positions of the kept tokens, results of them [B,H*W] indices into K.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Integer

from kernels.array_types import Array, Positions


def kept_at(
    positions: Positions, cells: int
) -> tuple[Integer[Array, "B {cells}"], Bool[Array, "B {cells}"]]:
    """Which kept token stands at each of H * W cells, 0 where none does, and whether one does."""
    index = jnp.arange(positions.shape[1], dtype=jnp.int32)

    # Image by image, so that a batch spread over devices stays there.
    def at_cells(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        empty = jnp.zeros(cells, jnp.int32)
        return empty.at[positions].set(index), empty.astype(bool).at[positions].set(True)

    return jax.vmap(at_cells)(positions)


def nearest_kept(
    positions: Positions, grid: tuple[int, int]
) -> Integer[Array, "B {grid[0]*grid[1]}"]:
    """The nearest kept token of each cell: smallest |dy| + |dx|, ties to the lower position.

    Distance and position make one integer key, and the distance is a sum over the two axes, so the
    smallest key is found along columns first and along rows of the result after.
    """
    H, W = grid
    cells = H * W
    index, kept = kept_at(positions, cells)
    far = (H + W) * cells
    key = jnp.where(kept, jnp.arange(cells, dtype=jnp.int32), far).reshape(-1, H, W)

    def distances(side: int) -> jax.Array:
        place = jnp.arange(side, dtype=jnp.int32)
        return jnp.abs(place[:, None] - place) * cells

    key = jnp.min(key[:, None, :, :] + distances(H)[:, :, None], axis=2)
    key = jnp.min(key[:, :, None, :] + distances(W), axis=3)
    return jnp.take_along_axis(index, key.reshape(-1, cells) % cells, axis=1)
