"""Stochastic depth."""

import jax
import jax.numpy as jnp


def drop_path(x: jax.Array, keep: jax.Array, key: jax.Array) -> jax.Array:
    """Zero whole images with probability `1 - keep`, scale the rest by `1 / keep`; x is [B,...]."""
    mask = jax.random.bernoulli(key, keep, (x.shape[0], *(1,) * (x.ndim - 1)))
    return jnp.where(mask, x / keep.astype(x.dtype), 0)
