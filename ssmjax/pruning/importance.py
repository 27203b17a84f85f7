"""Token scores: how important each token is, from the SSM's output or from nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from ssmjax.pruning.config import PruneConfig

GOLDEN_RATIO = 0.6180339887498949

_FROM_OUTPUT = {
    # Equation 9 of the paper. Not jnp.maximum: compiled for a CPU, it turns NaN into 0.
    "clip": lambda y: jnp.sum(jnp.where(y < 0, 0, y), axis=-1),
    "sum": lambda y: jnp.sum(y, axis=-1),
    "l1": lambda y: jnp.sum(jnp.abs(y), axis=-1),
    "l2": lambda y: jnp.sqrt(jnp.sum(jnp.square(y), axis=-1)),
}


def token_scores(
    config: PruneConfig,
    y: jax.Array,
    positions: jax.Array,
    length: int,
    key: jax.Array | None,
) -> jax.Array:
    """Scores under `config.importance`; higher is kept.

    Args:
      config: names the importance.
      y: [B,K,E] what enters `out_proj`: the gated SSM output, all directions added.
      positions: [B,K] original positions.
      length: L, the original sequence length.
      key: a random key, for `random` only.

    Returns:
      [B,K] scores in float32, or y's dtype where that is wider.

    Raises:
      ValueError: `random` without a key.
    """
    if config.importance == "uniform":
        # Ranks of frac(position * golden ratio), taken in float64: float32 would tie them.
        fraction = np.modf(np.arange(length) * GOLDEN_RATIO)[0]
        return jnp.asarray(np.argsort(np.argsort(fraction)), jnp.float32)[positions]
    if config.importance == "random":
        if key is None:
            raise ValueError(
                'importance="random" needs a key: model(images, key=jax.random.key(0)).'
            )
        return jax.random.uniform(key, positions.shape)
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return _FROM_OUTPUT[config.importance](y)
