"""Normalisation, computed in float32 whatever the compute dtype."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale` over the last axis; the official Vim norm, weight only."""

    def __init__(self, features: int, *, epsilon: float):
        self.scale = nnx.Param(jnp.ones(features))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """[..., D] in float32 (or wider) to [..., D] of `dtype`."""
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return (x * lax.rsqrt(mean_square + self.epsilon) * self.scale[...]).astype(dtype)
