"""Normalisation, computed in float32 whatever the compute dtype."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


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
    """Batch normalisation by stored statistics, over the last axis; eps 1e-5.

    The statistics are buffers that come with the weights and stay: fine-tuning trains scale and
    bias only, so images never influence one another, on one device or on many.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        # Batches the statistics have seen: kept for the way back to PyTorch.
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D], computed in float32 (or wider), to [..., D] of x's dtype."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        factor = lax.rsqrt(self.var[...] + 1e-5) * self.scale[...]
        return ((wide - self.mean[...]) * factor + self.bias[...]).astype(x.dtype)
