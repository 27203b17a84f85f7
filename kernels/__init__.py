"""Numerical kernels. Imports nothing of `ssmjax` or `train`.

Dimension letters, used everywhere in this project:
    B batch, L original sequence length, K kept tokens, D model width, E inner channels,
    N states, R rank of delta, H W grid of patches.
"""

from kernels.selective_scan import selective_scan

__all__ = ["selective_scan"]
