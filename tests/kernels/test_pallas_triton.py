"""The Triton kernels beyond what all implementations share: odd blocks, and where they run."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from kernels import capability, selective_scan
from kernels.selective_scan import IMPLEMENTATIONS, lanes, pallas_triton
from tests.oracles.compare import assert_close
from tests.oracles.scan_cases import cast, cotangents, expected, random_inputs, run

SIZES = {  # Tokens of a group; then K, E and N, which fit no block.
    "two blocks, a tail": (4, 6, 33, 1),
    "shorter than a group": (8, 3, 2, 5),
    "two pieces of states": (1, 3, 2, 17),
}


@pytest.fixture
def groups_of(monkeypatch):
    def register(tokens):
        scan = partial(pallas_triton.scan, interpret=True, tokens=tokens)
        monkeypatch.setitem(IMPLEMENTATIONS, f"groups of {tokens}", scan)
        return f"groups of {tokens}"

    return register


@pytest.mark.parametrize(
    "size",
    [
        "two blocks, a tail",
        pytest.param("shorter than a group", marks=pytest.mark.slow),
        "two pieces of states",
    ],
)
def test_sizes_that_fit_no_block(size, groups_of):
    tokens, length, inner, states = SIZES[size]
    arrays, options = random_inputs(1, 2, length, inner, states)
    arrays = cast(arrays, np.float32)
    dout, dlast = (x.astype(np.float32) for x in cotangents(1, arrays))
    out, last, grads = run(selective_scan, groups_of(tokens), arrays, options, dout, dlast)
    want_out, want_last, want_grads = expected(arrays, options, dout, dlast)
    assert_close(out, want_out, 1e-5, "out")
    assert_close(last, want_last, 1e-5, "last_state")
    for name, want in want_grads.items():
        assert_close(grads[name], want, 1e-5, name)


def test_interpreted_outputs_start_as_nan():
    """So that in the other tests an element that a kernel did not write would show."""

    def lazy(x, y):
        y[0] = x[0]

    shape = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    y = pl.pallas_call(lazy, out_shape=shape, interpret=True)(jnp.ones((2, 4)))
    chex.assert_tree_all_finite(y[0])
    assert np.isnan(y[1]).all()


def test_paths_that_share_parameters(groups_of):
    """Under vmap, with delta, C and A shared, as PlainMamba scans its four paths."""
    name = groups_of(1)
    sets = [random_inputs(seed, bias=False, z=False) for seed in range(4)]
    shared = {k: v for k, v in cast(sets[0][0], np.float32).items() if k in ("delta", "A", "C")}
    own = {k: np.stack([a[k] for a, _ in sets]).astype(np.float32) for k in ("u", "B")}

    def both(scan, positions):
        def loss(shared, own):
            one = partial(scan, **shared, delta_softplus=True)
            axis = None if positions is None else 0
            y = jax.vmap(lambda own, p: one(**own, positions=p), (0, axis))(own, positions)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(shared, own)

    for positions in (None, np.stack([options["positions"] for _, options in sets])):
        got = both(partial(selective_scan, implementation=name), positions)
        want = both(partial(selective_scan, implementation="reference"), positions)
        jax.tree.map(partial(assert_close, tolerance=1e-5), got, want)


def test_softplus_is_relatively_exact():
    x = np.concatenate([np.linspace(-80, 90, 4001), [-1.3863, -1.3862, 0]]).astype(np.float32)
    step, slope = lanes.Lanes(interpret=True).softplus(jnp.asarray(x))
    want = np.logaddexp(0, x.astype(np.float64))
    chex.assert_trees_all_close(step, want, rtol=1e-5)
    chex.assert_trees_all_close(slope, np.exp(x - want), rtol=1e-5)
    e = np.linspace(1e-9, 0.25, 1001)
    chex.assert_trees_all_close(np.polyval(lanes.LOG1P, e) * e, np.log1p(e), rtol=3e-7)


@pytest.mark.parametrize("count", [4, 8, 32])
def test_butterfly_sums_over_the_lanes(count, monkeypatch):
    """The compiled form, with its two instructions played by numpy, against the definition."""

    def exchange(x, bit):
        return x[np.arange(lanes.LANES) ^ bit]

    def multiply_add(instruction, a, b, c):
        assert instruction.startswith("fma")
        return a * b + c

    monkeypatch.setattr(lanes, "_exchange", exchange)
    monkeypatch.setattr(lanes, "_assembly", multiply_add)
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(count, lanes.LANES)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, lanes.LANES)), jnp.float32)
    pairs = [(v, weights[2 * i // count]) for i, v in enumerate(values)]
    got = lanes.Lanes(interpret=False).sums(pairs)
    assert_close(got, lanes.Lanes(interpret=True).sums(pairs), 1e-6)
    assert_close(got[:count], [np.sum(v * w) for v, w in pairs], 1e-6)


@pytest.mark.skipif(capability.has_cuda(), reason="a GPU is here")
@pytest.mark.parametrize("jit", [True, False])
def test_named_it_never_falls_back(jit):
    arrays, options = random_inputs(2)
    arrays = cast(arrays, np.float32)

    def scan(arrays) -> Any:
        return selective_scan(**arrays, **options, implementation="pallas_triton")

    with pytest.raises(NotImplementedError, match="CUDA GPUs only, and this is cpu"):
        (jax.jit(scan) if jit else scan)(arrays)
    with pytest.raises(NotImplementedError, match="CUDA GPUs only, and this is cpu"):
        jax.grad(lambda arrays: scan(arrays).sum())(arrays)


@pytest.mark.parametrize(("cuda", "best"), [(True, "pallas_triton"), (False, "reference")])
def test_the_default_follows_the_device(cuda, best, monkeypatch):
    called = []

    def stand_in(name):
        def scan(inputs):
            called.append(name)
            return inputs.u, jnp.zeros((len(inputs.u), *inputs.A.shape))

        return scan

    for name in IMPLEMENTATIONS:
        monkeypatch.setitem(IMPLEMENTATIONS, name, stand_in(name))
    monkeypatch.setattr(capability, "has_cuda", lambda: cuda)
    arrays, options = random_inputs(2)
    selective_scan(**cast(arrays, np.float32), **options)
    with jax.enable_x64(True):
        selective_scan(**arrays, **options)
    assert called == [best, "reference"]
