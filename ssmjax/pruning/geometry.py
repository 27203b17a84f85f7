"""Where the tokens of an image stand before any is pruned."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from kernels.selective_scan.inputs import STATIC


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Geometry:
    """The original positions of an image's tokens: patches in raster order, and a class token.

    Attributes:
      grid: (H, W) patches.
      class_index: original position of the class token, which is never pruned; None without one.
      stage: the pruning stage, from 0.
      padding: [B,L] bool by original position, tokens that are pruned before all others; None:
        there are none.
    """

    grid: tuple[int, int] = field(metadata=STATIC)
    class_index: int | None = field(default=None, metadata=STATIC)
    stage: int = field(default=0, metadata=STATIC)
    padding: jax.Array | None = None

    @property
    def length(self) -> int:
        """L, patches and class token."""
        return self.grid[0] * self.grid[1] + self.others

    @property
    def others(self) -> int:
        """Tokens that are no patches: 1 with a class token, else 0."""
        return 0 if self.class_index is None else 1

    @property
    def fused_position(self) -> int:
        """The position given to a token that this stage fuses of others."""
        return self.length + self.stage

    def everywhere(self, batch: int) -> jax.Array:
        """[batch,L] int32, the positions of images of which nothing is pruned."""
        return jnp.broadcast_to(jnp.arange(self.length, dtype=jnp.int32), (batch, self.length))

    def is_class(self, positions: jax.Array) -> jax.Array | None:
        """[B,K] bool, whether the token at each position is the class token; None without one."""
        return None if self.class_index is None else positions == self.class_index

    def cells(self, positions: jax.Array) -> jax.Array:
        """[B,K] raster cells of the grid for positions [B,K]; H*W for the class token."""
        if self.class_index is None:
            return positions
        cells = positions - (positions > self.class_index)
        return jnp.where(positions == self.class_index, self.grid[0] * self.grid[1], cells)
