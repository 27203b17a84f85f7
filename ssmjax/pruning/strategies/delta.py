"""Scores from the step sizes: a token that moves the state far says much (MTR, arXiv 2507.14042).

MTR needs no training: with `reduction="merge"` the other tokens join their nearest kept neighbour.
"""

import jax.numpy as jnp

from ssmjax.pruning.strategies.strategy import Judgement, Strategy, Tokens


def judge(tokens: Tokens) -> Judgement:
    """The mean step over channels."""
    return Judgement(jnp.mean(tokens.signal, axis=-1))


STRATEGIES = {"delta": Strategy(judge, needs="delta")}
