"""How published models train, and small ones; those of classifiers can be imported from here."""

from train.recipes.classification import COMPARED, plain_mamba, vim

__all__ = ["COMPARED", "plain_mamba", "vim"]
