"""A scan as one object: mapped, compiled and differentiated whole."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.selective_scan import Scan, run_scan
from tests.oracles.scan_cases import as_scan, cast, cotangents, expected, random_inputs

pytestmark = pytest.mark.usefixtures("interpreted")


@pytest.mark.optimised
@pytest.mark.parametrize("implementation", ["reference", "associative", "pallas_triton"])
def test_gradient_is_a_scan(implementation):
    arrays, options = random_inputs(3, length=11, alignment="constant", reverse=True)
    arrays = cast(arrays, "float32")
    dout, dlast = (a.astype(np.float32) for a in cotangents(3, arrays))
    scan = as_scan(arrays, options)

    @jax.jit
    def both(scan):
        y, pull = jax.vjp(partial(run_scan, implementation=implementation), scan)
        return y, pull((dout, dlast))[0]

    (y, last), got = both(scan)
    want_y, want_last, want = expected(arrays, options, dout, dlast)
    chex.assert_trees_all_close((y, last), (want_y, want_last), rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(got) == jax.tree.structure(scan)
    grads = {name: getattr(got, name) for name in want.keys() - {"gap_delta"}}
    grads["gap_delta"] = got.gaps.delta
    chex.assert_trees_all_close(grads, want, rtol=1e-4, atol=1e-5)
    chex.assert_type(got.gaps.positions, jax.dtypes.float0)


def test_options_are_static():
    """They are there when a function of a scan is traced, and another one traces it again."""
    seen = []

    @jax.jit
    @chex.assert_max_traces(n=3)
    def look(scan):
        seen.append((scan.softplus, scan.reverse, scan.gaps.alignment))
        return scan.u

    for reverse, alignment in (
        (False, "previous"),
        (True, "previous"),
        (True, "none"),
        (True, "none"),
    ):
        arrays, options = random_inputs(4, reverse=reverse, alignment=alignment)
        look(as_scan(cast(arrays, "float32"), options))
    assert seen == [(True, False, "previous"), (True, True, "previous"), (True, True, "none")]


@pytest.mark.parametrize(("dtype", "want"), [("bfloat16", "float32"), ("float64", "float64")])
def test_dtype_of_the_state(dtype, want):
    """The widest of all arrays but positions and order, and no less than float32."""
    arrays, options = random_inputs(4, alignment="constant")
    with jax.enable_x64(True):
        for name in arrays:
            scan = as_scan(
                cast(arrays, "float32") | {name: jnp.asarray(arrays[name], dtype)}, options
            )
            assert scan.dtype == want
        narrow = dict.fromkeys(("u", "delta", "A", "B", "C"), jnp.ones(1, jnp.bfloat16))
        assert Scan(**narrow).dtype == "float32"
