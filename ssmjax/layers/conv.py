"""Causal depthwise convolution over tokens, dense or pruned."""

import jax
import jax.numpy as jnp
from flax import nnx


class CausalConv(nnx.Module):
    """Depthwise convolution of width `taps` over the tokens before each token in scan order.

    Written as shifted multiply-adds: a pruned sequence then only changes which tap a neighbour
    meets, and no sequence of length L is ever formed.
    """

    def __init__(self, channels: int, taps: int, *, rngs: nnx.Rngs):
        bound = taps**-0.5  # PyTorch's default for a depthwise Conv1d.
        shape = (taps, channels)
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(
            jax.random.uniform(rngs.params(), (channels,), minval=-bound, maxval=bound)
        )

    def __call__(self, x: jax.Array, positions: jax.Array | None, reverse: bool) -> jax.Array:
        """Convolve kept tokens.

        Args:
          x: [B,K,E] kept tokens.
          positions: [B,K] original positions: pruned ones count as zero inputs (`conv="aligned"`),
            or None: kept tokens are each other's neighbours (`conv="compact"`, and dense).
          reverse: look at the tokens after each token instead of those before.

        Returns:
          [B,K,E] of x's dtype.
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
