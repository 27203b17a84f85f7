"""One error measure for every comparison of arrays."""

import chex
import numpy as np


def assert_close(got, want, tolerance: float, name: str = "array"):
    """Of one shape, finite, and max |got - want| at most `tolerance` max |want|."""
    got, want = ({name: np.asarray(array).astype(np.float64)} for array in (got, want))
    chex.assert_trees_all_equal_shapes(got, want)
    chex.assert_tree_all_finite(got)
    scale = np.abs(want[name]).max() or 1.0
    chex.assert_trees_all_close(got, want, rtol=0, atol=tolerance * scale)
