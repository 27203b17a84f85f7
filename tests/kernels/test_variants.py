"""Every implementation, compiled or step by step, on arrays of the device or NumPy's."""

import chex
import numpy as np
import pytest
from absl.testing import parameterized

from kernels import selective_scan
from tests.oracles.compare import assert_close
from tests.oracles.scan_cases import (
    cast,
    cotangents,
    expected,
    random_inputs,
    value_and_gradients,
)
from tests.variants import in_all_variants

pytestmark = pytest.mark.usefixtures("interpreted")


class TestVariants(chex.TestCase):
    def check_against_loop(self, implementation):
        batch, length, inner, states = 2, 5, 3, 4
        arrays, options = random_inputs(3, batch, length, inner, states)
        positions = options.pop("positions")
        arrays = cast(arrays, np.float32)
        dout, dlast = (a.astype(np.float32) for a in cotangents(3, arrays))
        both = self.variant(value_and_gradients(selective_scan, implementation, options.items()))
        out, last, grads = both(arrays, positions, dout, dlast)
        chex.assert_shape([out, last], [(batch, length, inner), (batch, inner, states)])
        chex.assert_type([out, last], np.float32)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, arrays)
        chex.assert_tree_all_finite((out, last, grads))
        want = expected(arrays, options | {"positions": positions}, dout, dlast)
        assert_close(out, want[0], 1e-5, "out")
        assert_close(last, want[1], 1e-5, "last state")
        for name in want[2]:
            assert_close(grads[name], want[2][name], 1e-5, f"gradient of {name}")

    @in_all_variants
    @parameterized.parameters("reference", "associative", "pallas_triton")
    def test_against_loop(self, implementation):
        self.check_against_loop(implementation)

    @in_all_variants
    @pytest.mark.slow  # Its interpreter takes long.
    def test_pallas_mosaic_against_loop(self):
        self.check_against_loop("pallas_mosaic")
