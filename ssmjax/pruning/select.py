"""Hard top-k selection of tokens, in their original order."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Integer, Shaped

from kernels.array_types import Array


def select_tokens(
    scores: Float[Array, "B K"], count: int, protected: Bool[Array, "B K"] | None = None
) -> Integer[Array, "B {count}"]:
    """Indices of the `count` best tokens per image, increasing.

    The highest scores are the best, ties go to the lower index and NaN ranks last. `protected`
    tokens, among the `count` (which is static), are kept whatever their score. No gradient flows
    through the choice.
    """
    scores = lax.stop_gradient(scores)
    bounds = jnp.finfo(scores.dtype)
    # Infinities are left to NaN and to protected tokens; -0 becomes 0, so that they tie.
    ranked = jnp.clip(jnp.where(scores == 0, 0, scores), bounds.min, bounds.max)
    ranked = jnp.where(jnp.isnan(scores), -jnp.inf, ranked)
    if protected is not None:
        ranked = jnp.where(protected, jnp.inf, ranked)
    # Not lax.top_k: with the batch spread over devices, XLA would gather it for that.
    best = jnp.argsort(ranked, axis=-1, descending=True, stable=True)[:, :count]
    return jnp.sort(best.astype(jnp.int32), axis=-1)


def gather_tokens(
    tokens: Shaped[Array, "B K *rest"], indices: Integer[Array, "B count"]
) -> Shaped[Array, "B count *rest"]:
    """The tokens at `indices`."""
    return jnp.take_along_axis(
        tokens, indices.reshape(*indices.shape, *(1,) * (tokens.ndim - 2)), 1
    )
