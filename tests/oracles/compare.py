"""One error measure for every comparison of arrays."""

import numpy as np


def rel_err(got, want) -> float:
    """max |got - want| / max |want|; infinite where shapes differ or `got` is not finite."""
    got, want = np.asarray(got).astype(np.float64), np.asarray(want).astype(np.float64)
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    scale = np.abs(want).max()
    error = np.abs(got - want).max()
    return float(error / scale) if scale else float(error)


def assert_close(got, want, tolerance: float, name: str = "array"):
    assert np.shape(got) == np.shape(want), f"{name}: {np.shape(got)} against {np.shape(want)}"
    error = rel_err(got, want)
    assert error <= tolerance, f"{name}: relative error {error:.3g} above {tolerance:g}"
