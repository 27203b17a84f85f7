"""Baselines that do not look at the image."""

import jax
import jax.numpy as jnp
import numpy as np

from ssmjax.pruning.strategies.strategy import Judgement, Strategy, Tokens

GOLDEN_RATIO = 0.6180339887498949


def random(tokens: Tokens) -> Judgement:
    """Uniform in [0, 1)."""
    return Judgement(jax.random.uniform(tokens.key, tokens.positions.shape))


def uniform(tokens: Tokens) -> Judgement:
    """frac(position * golden ratio): whatever number is kept lies evenly spread."""
    # Ranks, taken in float64: float32 would tie the fractions.
    fraction = np.modf(np.arange(tokens.geometry.length) * GOLDEN_RATIO)[0]
    ranks = jnp.asarray(np.argsort(np.argsort(fraction)), jnp.float32)
    return Judgement(ranks[tokens.positions])


STRATEGIES = {"random": Strategy(random, by_chance=True), "uniform": Strategy(uniform)}
