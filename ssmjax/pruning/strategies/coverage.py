"""Importance within each neighbourhood, so that no part of the image is emptied before others."""

import jax
import jax.numpy as jnp
from jax import lax

from ssmjax.pruning.strategies.output import clipped_sum
from ssmjax.pruning.strategies.strategy import Judgement, Strategy, Tokens

SIDE = 2  # Cells of a neighbourhood's side.


def judge(tokens: Tokens) -> Judgement:
    """Rank among the tokens present in its 2 x 2 neighbourhood first, the clipped sum second."""
    across = -(-tokens.geometry.grid[1] // SIDE)
    row, column = jnp.divmod(tokens.cells, tokens.geometry.grid[1])
    neighbourhood = row // SIDE * across + column // SIDE
    scores = clipped_sum(tokens.signal)
    return Judgement(jax.vmap(_by_rank)(neighbourhood, scores))


def _by_rank(neighbourhood: jax.Array, scores: jax.Array) -> jax.Array:
    """[K] and [K] to [K]: 0 for the best token, -1 for the next, and so on."""
    worst_last = jnp.where(jnp.isnan(scores), jnp.inf, -scores)
    index = jnp.arange(scores.size)
    order = jnp.lexsort((worst_last, neighbourhood))
    places = neighbourhood[order]
    starts = jnp.where(jnp.diff(places, prepend=-1) != 0, index, 0)
    rank = jnp.zeros_like(index).at[order].set(index - lax.cummax(starts))
    rank = jnp.where(jnp.isnan(scores), index.size, rank)
    best_first = jnp.lexsort((worst_last, rank))
    return jnp.zeros(scores.shape, scores.dtype).at[best_first].set(-index.astype(scores.dtype))


STRATEGIES = {"coverage": Strategy(judge, needs="output")}
