"""The aligned selective scan: one public function, one file per implementation."""

from kernels.selective_scan.api import IMPLEMENTATIONS, selective_scan

__all__ = ["IMPLEMENTATIONS", "selective_scan"]
