"""The aligned selective scan: one public function, one file per implementation."""

from kernels.selective_scan.api import IMPLEMENTATIONS, run_scan, selective_scan
from kernels.selective_scan.inputs import Gaps, Scan

__all__ = ["IMPLEMENTATIONS", "Gaps", "Scan", "run_scan", "selective_scan"]
