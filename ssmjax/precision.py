"""Float32 or wider: where sums, norms, softmax and residual streams are taken."""

import jax
import jax.numpy as jnp


def wide_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """Float32, or `dtype` where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def widened(x: jax.Array) -> jax.Array:
    """`x` in `wide_dtype(x.dtype)`."""
    return x.astype(wide_dtype(x.dtype))
