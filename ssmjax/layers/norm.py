"""Normalisation, computed in float32 whatever the compute dtype."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

MOMENTUM = 0.1  # Of PyTorch: how far stored statistics move to those of a batch.


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale` over the last axis; the official Vim norm, weight only."""

    def __init__(self, features: int, *, epsilon: float, dtype: jnp.dtype):
        self.scale = nnx.Param(jnp.ones(features))
        self.epsilon, self.dtype = epsilon, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] in float32 (or wider) to [..., D] of `self.dtype`."""
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return (x * lax.rsqrt(mean_square + self.epsilon) * self.scale[...]).astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over the last axis; eps 1e-5.

    By stored statistics, unless told to `train`: those are buffers that come with the weights, and
    images then never influence one another.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        # Batches the statistics have seen: kept for the way back to PyTorch.
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalise.

        Args:
          x: [...,D].
          train: by the statistics of this batch, which also move the stored ones a tenth of the
            way to themselves, in place, variances as the unbiased estimate (PyTorch's way). Under
            `jit` on a global batch they are those of all devices.
          mask: bool of x's first axes, as [R] for x [R,H,W,D]; false for what the statistics of
            the batch leave out. If they leave out all, the stored ones stay.

        Returns:
          [...,D] of x's dtype; computed in float32 (or wider).
        """
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, var = self._update(wide, mask) if train else (self.mean[...], self.var[...])
        factor = lax.rsqrt(var + 1e-5) * self.scale[...]
        return ((wide - mean) * factor + self.bias[...]).astype(x.dtype)

    def _update(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The mean and biased variance of a batch, after the stored ones have moved."""
        axes = tuple(range(x.ndim - 1))
        where = None
        number = jnp.asarray(math.prod(x.shape[:-1]), x.dtype)
        if mask is not None:
            where = jnp.broadcast_to(
                mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), (*x.shape[:-1], 1)
            )
            number = where.sum(dtype=x.dtype)
        mean = jnp.sum(x, axes, where=where) / jnp.maximum(number, 1)
        squares = jnp.sum(jnp.square(x - mean), axes, where=where)
        rate = jnp.where(number > 0, MOMENTUM, 0)
        for stored, new in (
            (self.mean, mean),
            (self.var, squares / jnp.maximum(number - 1, 1)),
        ):
            old = stored[...]
            moved = old + rate * (lax.stop_gradient(new) - old)
            stored.set_value(moved.astype(old.dtype))
        self.count.set_value(self.count[...] + (number > 0))
        return mean, squares / jnp.maximum(number, 1)
