"""Numerical kernels. Imports nothing of `ssmjax` or `train`."""

from kernels.selective_scan import selective_scan

__all__ = ["selective_scan"]
