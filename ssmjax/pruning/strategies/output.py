"""Scores from the SSM's output: the paper's equation 9 and the rows of its table 3."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssmjax.precision import widened
from ssmjax.pruning.strategies.strategy import Judgement, Strategy, Tokens


def clipped_sum(y: jax.Array) -> jax.Array:
    """[B,K,E] to [B,K] in float32 (or wider): the sum of what is positive (equation 9)."""
    # Not jnp.maximum: compiled for a CPU, it turns NaN into 0.
    return jnp.sum(jnp.where(y < 0, 0, widened(y)), axis=-1)


def _scored(score: Callable[[jax.Array], jax.Array]) -> Strategy:
    def judge(tokens: Tokens) -> Judgement:
        return Judgement(score(tokens.signal))

    return Strategy(judge, needs="output")


STRATEGIES = {
    "clip": _scored(clipped_sum),
    "sum": _scored(lambda y: jnp.sum(widened(y), axis=-1)),
    "l1": _scored(lambda y: jnp.sum(jnp.abs(widened(y)), axis=-1)),
    "l2": _scored(lambda y: jnp.sqrt(jnp.sum(jnp.square(widened(y)), axis=-1))),
}
