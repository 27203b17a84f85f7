"""A fixed number of boxes to learn from."""

import jax
import jax.numpy as jnp

from ssmjax.dense.heads.assign import BACKGROUND


def sample(
    assigned: jax.Array, key: jax.Array | None, size: int, most_positive: int, first: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Choose positives, at most `most_positive`, and fill up with background.

    Args:
      assigned: [A] int32, from `assign`.
      key: a random key. None chooses evenly: of n candidates for m places, in increasing order,
        number (i * n) // m for each i.
      size: boxes to choose, static.
      most_positive: positives among them at most, static.
      first: so many boxes come before those of a fixed number, static; the random choice among the
        latter does not depend on how many of the first ones there are.

    Returns:
      indices: [size] int32 into A, positives first, then background; 0 where there are too few.
      chosen: [size] bool, False there.
    """
    positive, background = assigned > BACKGROUND, assigned == BACKGROUND
    group = jnp.select([positive, background], [0.0, 1.0], 2.0)
    # A float32 draw keeps all its bits when 0 or 1 is added.
    # Draw i depends on the key and i alone; the first boxes take the last draws.
    draw = 0.0 if key is None else jnp.roll(jax.random.uniform(key, assigned.shape), first)
    order = jnp.argsort(group + draw, stable=True).astype(jnp.int32)

    positives, backgrounds = positive.sum(dtype=jnp.int32), background.sum(dtype=jnp.int32)
    of_positives = jnp.minimum(positives, most_positive)
    of_backgrounds = jnp.minimum(backgrounds, size - of_positives)
    slot = jnp.arange(size, dtype=jnp.int32)
    nth = slot - of_positives
    if key is None:
        nth_positive = slot * positives // jnp.maximum(of_positives, 1)
        nth = nth * backgrounds // jnp.maximum(of_backgrounds, 1)
    else:
        nth_positive = slot
    place = jnp.where(slot < of_positives, nth_positive, positives + nth)
    chosen = slot < of_positives + of_backgrounds
    return jnp.where(chosen, order[jnp.where(chosen, place, 0)], 0), chosen
