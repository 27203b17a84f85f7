"""The Mosaic GPU kernel beyond what all implementations share: odd sizes, and where it runs."""

import itertools
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import capability, selective_scan
from kernels.selective_scan import pallas_mosaic
from tests.oracles import scan_oracle
from tests.oracles.compare import assert_close
from tests.oracles.scan_cases import cast, random_inputs

SIZES = {
    # Length, inner, states: whole groups of tokens and blocks of channels, and what is left over.
    "one group": (8, 128, 2),
    "two groups": (16, 3, 5),
    "more groups than slots": (29, 2, 1),
    "two blocks": (3, 129, 2),
    "many states": (2, 1, 33),
}


QUICK = {("one group", False), ("more groups than slots", True), ("many states", False)}


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("size", "reverse"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(SIZES, (False, True))
    ],
)
def test_sizes_that_fit_no_block(size, reverse):
    length, inner, states = SIZES[size]
    arrays, options = random_inputs(1, 2, length, inner, states, reverse=reverse)
    arrays = cast(arrays, np.float32)
    options["return_last_state"] = True
    got = selective_scan(**arrays, **options, implementation="pallas_mosaic")
    want = scan_oracle.selective_scan(**arrays, **options)
    assert_close(got[0], want[0], 1e-5, "out")
    assert_close(got[1], want[1], 1e-5, "last_state")


@pytest.mark.usefixtures("interpreted")
def test_paths_that_share_parameters():
    """Under vmap, with delta, C and A shared, as PlainMamba scans its four paths."""
    sets = [random_inputs(seed, bias=False, z=False) for seed in range(4)]
    shared = {k: v for k, v in cast(sets[0][0], np.float32).items() if k in ("delta", "A", "C")}
    own = {k: np.stack([a[k] for a, _ in sets]).astype(np.float32) for k in ("u", "B")}
    positions = np.stack([options["positions"] for _, options in sets])

    def paths(implementation):
        one = partial(selective_scan, **shared, delta_softplus=True, implementation=implementation)
        return jax.jit(jax.vmap(lambda own, p: one(**own, positions=p)))(own, positions)

    assert_close(paths("pallas_mosaic"), paths("reference"), 1e-5)


def test_softplus_is_relatively_exact():
    x = np.concatenate([np.linspace(-80, 90, 4001), [-1.3863, -1.3862, 0]]).astype(np.float32)
    want = np.logaddexp(0, x.astype(np.float64))
    chex.assert_trees_all_close(pallas_mosaic.softplus(jnp.asarray(x)), want, rtol=1e-5)


def test_sigmoid_of_large_inputs():
    x = np.array([-200, -80, -1, 0, 1, 80, 200], np.float32)
    want = np.exp(-np.logaddexp(0, -x.astype(np.float64)))
    chex.assert_trees_all_close(pallas_mosaic.sigmoid(jnp.asarray(x)), want, rtol=1e-5, atol=1e-38)


def test_more_states_than_registers_are_refused():
    arrays, options = random_inputs(2, states=65)
    with pytest.raises(NotImplementedError, match="64 states and A has 65"):
        selective_scan(**cast(arrays, np.float32), **options, implementation="pallas_mosaic")


@pytest.mark.skipif(capability.has_cuda(), reason="a GPU is here")
@pytest.mark.parametrize("jit", [True, False])
def test_named_it_never_falls_back(jit):
    arrays, options = random_inputs(2)
    arrays = cast(arrays, np.float32)

    def scan(arrays) -> Any:
        return selective_scan(**arrays, **options, implementation="pallas_mosaic")

    with pytest.raises(NotImplementedError, match="Mosaic kernel.*only, and this is cpu"):
        (jax.jit(scan) if jit else scan)(arrays)
    with pytest.raises(NotImplementedError, match="CUDA GPUs only, and this is cpu"):
        jax.grad(lambda arrays: scan(arrays).sum())(arrays)
