"""Scores from a ViT's class token: what it attends to says much (EViT, arXiv 2202.07800).

The scores of all tokens sum to 1, so with `reduction="fuse"` they are what the others are added by.
"""

from ssmjax.pruning.strategies.strategy import Judgement, Strategy, Tokens


def judge(tokens: Tokens) -> Judgement:
    """How much of each token the class token takes, mean over heads."""
    return Judgement(tokens.signal)


STRATEGIES = {"attention": Strategy(judge, needs="attention", shares=True)}
