"""How the tests of the scan run GPU kernels: as plain JAX, on any machine."""

from functools import partial

import pytest

from kernels.selective_scan import IMPLEMENTATIONS, pallas_mosaic, pallas_triton
from kernels.selective_scan.order import by_gathering
from tests.kernels.interpreter import MOSAIC


@pytest.fixture
def interpreted(monkeypatch):
    """GPU kernels under their own names, interpreted; Triton's with groups of two tokens."""
    scan = partial(pallas_triton.scan, interpret=True, tokens=2)
    monkeypatch.setitem(IMPLEMENTATIONS, "pallas_triton", scan)
    monkeypatch.setattr(pallas_triton, "scan", scan)  # For the gradients of pallas_mosaic.
    scan = by_gathering(partial(pallas_mosaic.scan, interpret=MOSAIC))
    monkeypatch.setitem(IMPLEMENTATIONS, "pallas_mosaic", scan)
