"""Depthwise convolutions over tokens, dense or pruned: causal, and on the grid."""

import operator
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.pruning.select import gather_tokens


class CausalConv(nnx.Module):
    """Depthwise convolution of width `taps` over the tokens before each token in scan order.

    Written as shifted multiply-adds: a pruned sequence then only changes which tap a neighbour
    meets, and no sequence of length L is ever formed.
    """

    def __init__(self, channels: int, taps: int, *, rngs: nnx.Rngs):
        bound = taps**-0.5  # PyTorch's default for a depthwise Conv1d.
        uniform = partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.kernel = nnx.Param(uniform(rngs.params(), (taps, channels)))
        self.bias = nnx.Param(uniform(rngs.params(), (channels,)))

    def __call__(self, x: jax.Array, positions: jax.Array | None, reverse: bool) -> jax.Array:
        """[B,K,E] kept tokens to [B,K,E] of their dtype.

        Args:
          x: the tokens.
          positions: [B,K] original positions: pruned ones count as zero inputs (`conv="aligned"`),
            or None: kept tokens are each other's neighbours (`conv="compact"`, and dense).
          reverse: look at the tokens after each token instead of those before.
        """
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        taps, length = kernel.shape[0], x.shape[1]
        by_distance = kernel[::-1]  # The last tap is the token itself, distance 0.
        y = bias + by_distance[0] * x
        for steps in range(1, min(taps, length)):
            neighbour = _shift(x, steps, reverse)
            if positions is None:
                y = y + by_distance[steps] * neighbour
                continue
            distance = jnp.abs(positions - _shift(positions, steps, reverse))
            weight = jnp.pad(by_distance, ((0, 1), (0, 0)))[jnp.minimum(distance, taps)]
            y = y + weight * neighbour
        return y


def _shift(a: jax.Array, steps: int, reverse: bool) -> jax.Array:
    """The token `steps` earlier in scan order along axis 1; zero where there is none."""
    pad = [(0, 0)] * a.ndim
    pad[1] = (0, steps) if reverse else (steps, 0)
    return jnp.pad(a[:, steps:] if reverse else a[:, :-steps], pad)


class Cells(NamedTuple):
    """The cells of a grid and the tokens in them.

    Attributes:
      grid: (H, W).
      positions: [B,K] int32 raster positions of the kept tokens; None: every cell has its token.
      source: [B,H*W] int32, the token that each cell shows.
      shown: [B,H*W] bool, false where the cell is zero instead; None: no cell is.
    """

    grid: tuple[int, int]
    positions: jax.Array | None = None
    source: jax.Array | None = None
    shown: jax.Array | None = None


class GridConv(nnx.Module):
    """Depthwise convolution of `size` x `size` on the grid, zeros beyond its edge."""

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        use_bias: bool,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer | None = None,
    ):
        bound = 1 / size  # PyTorch's default for a depthwise Conv2d.
        uniform = partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.kernel = nnx.Param((kernel_init or uniform)(rngs.params(), (size, size, channels)))
        self.bias = nnx.Param(jnp.zeros(channels)) if use_bias else None

    def __call__(self, x: jax.Array, cells: Cells) -> jax.Array:
        """[B,K,E] kept tokens to [B,K,E] of their dtype.

        They are perhaps followed by others that cells show: [B,K+P,E].
        """
        if cells.source is not None:
            x = gather_tokens(x, cells.source)
        if cells.shown is not None:
            x = jnp.where(cells.shown[..., None], x, 0)
        (H, W), kernel = cells.grid, self.kernel[...].astype(x.dtype)
        size = kernel.shape[0]
        padded = jnp.pad(
            x.reshape(x.shape[0], H, W, -1), ((0, 0), *((size // 2,) * 2,) * 2, (0, 0))
        )
        taps = (
            padded[:, dy : dy + H, dx : dx + W] * kernel[dy, dx]
            for dy in range(size)
            for dx in range(size)
        )
        y = reduce(operator.add, taps)
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        y = y.reshape(x.shape)
        if cells.positions is None:
            return y
        return gather_tokens(y, cells.positions)
