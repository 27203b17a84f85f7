"""How parameters start, as in the official code."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

NORMAL = nnx.initializers.truncated_normal(0.02)  # Linear layers and embeddings.
linear = partial(nnx.Linear, kernel_init=NORMAL)


def residual_uniform(depth: int) -> nnx.Initializer:
    """Of a linear layer whose output a residual stream adds up, once in each of `depth` blocks.

    Kaiming uniform with a = sqrt(5), whose variance is 1 / (3 fan_in), divided by sqrt(depth).
    """
    return nnx.initializers.variance_scaling(1 / (3 * depth), "fan_in", "uniform")


def step_bias(key: jax.Array, channels: int) -> jax.Array:
    """[channels] biases whose softplus is log-uniform in [1e-3, 1e-1]."""
    log = jax.random.uniform(key, (channels,), minval=np.log(1e-3), maxval=np.log(1e-1))
    delta = jnp.maximum(jnp.exp(log), 1e-4)
    return delta + jnp.log(-jnp.expm1(-delta))
