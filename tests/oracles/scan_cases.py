"""Random inputs of a selective scan, and one way to run a scan with all its gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.selective_scan import Gaps, Scan
from tests.oracles import scan_oracle


def random_positions(rng, batch, length, most_pruned=3):
    """Strictly increasing per row; up to `most_pruned` positions missing before each token."""
    return np.cumsum(rng.integers(1, 2 + most_pruned, (batch, length)), axis=1).astype(np.int32) - 1


def random_inputs(
    seed,
    batch=2,
    length=7,
    inner=3,
    states=4,
    *,
    D=True,
    z=True,
    bias=True,
    softplus=True,
    alignment="previous",
    reverse=False,
    positions=True,
    most_pruned=3,
):
    """(arrays by name, options); `delta` is raw with softplus and positive without."""
    rng = np.random.default_rng(seed)
    arrays = {
        "u": rng.normal(size=(batch, length, inner)),
        "delta": rng.normal(size=(batch, length, inner)) - 1,
        "A": -np.exp(rng.normal(size=(inner, states))),
        "B": rng.normal(size=(batch, length, states)),
        "C": rng.normal(size=(batch, length, states)),
    }
    if not softplus:
        arrays["delta"] = np.exp(arrays["delta"])
    if D:
        arrays["D"] = rng.normal(size=inner)
    if z:
        arrays["z"] = rng.normal(size=(batch, length, inner))
    if bias:
        arrays["delta_bias"] = rng.uniform(0.1, 1, inner)
    if alignment == "constant":
        arrays["gap_delta"] = rng.uniform(0.05, 0.5, inner)
    options = {"delta_softplus": softplus, "alignment": alignment, "reverse": reverse}
    if positions:
        options["positions"] = random_positions(rng, batch, length, most_pruned)
    return arrays, options


def cast(arrays, dtype) -> dict[str, Any]:
    """Rounded to `dtype`, as numpy arrays."""
    return {name: np.asarray(value).astype(dtype) for name, value in arrays.items()}


def as_scan(arrays, options):
    """The `Scan` that `selective_scan` makes of these arguments."""
    arrays, options = jax.tree.map(jnp.asarray, arrays), dict(options)
    gap_delta = arrays.pop("gap_delta", None)
    gaps = Gaps(options.pop("positions", None), options.pop("alignment"), gap_delta)
    return Scan(**arrays, gaps=gaps, softplus=options.pop("delta_softplus"), **options)


def cotangents(seed, arrays):
    rng = np.random.default_rng([seed, 1])
    batch, _, _inner = arrays["u"].shape
    return rng.normal(size=arrays["u"].shape), rng.normal(size=(batch, *arrays["A"].shape))


def expected(arrays, options, dout, dlast):
    """(out, last_state, gradients) of the oracle, fed the arrays as they are rounded."""
    out, last = scan_oracle.selective_scan(**arrays, **options, return_last_state=True)
    return out, last, scan_oracle.selective_scan_grads(dout, **arrays, **options, dlast=dlast)


def value_and_gradients(scan, implementation, static):
    """A function of arrays, positions and cotangents that gives (out, last_state, gradients)."""

    def both(arrays, positions, dout, dlast):
        def forward(arrays):
            return scan(
                **arrays,
                **dict(static),
                positions=positions,
                return_last_state=True,
                implementation=implementation,
            )

        (out, last), pullback = jax.vjp(forward, arrays)
        return out, last, pullback((dout.astype(out.dtype), dlast.astype(last.dtype)))[0]

    return both


@functools.cache
def _compiled(scan, implementation, static):
    return jax.jit(value_and_gradients(scan, implementation, static))


def run(scan, implementation, arrays, options, dout, dlast):
    """(out, last_state, gradients) under jit, positions traced; compiled once per set of shapes."""
    static = tuple((key, value) for key, value in options.items() if key != "positions")
    both = _compiled(scan, implementation, static)
    return both(arrays, options.get("positions"), dout, dlast)
