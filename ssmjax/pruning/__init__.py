"""Token pruning: what to prune when, how tokens are scored, selected and gathered."""

from ssmjax.pruning.config import PruneConfig

__all__ = ["PruneConfig"]
