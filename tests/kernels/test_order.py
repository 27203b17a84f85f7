"""Rows in another order than the steps: every implementation, against the loop on moved rows."""

import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from kernels import selective_scan
from tests.oracles.compare import assert_close
from tests.oracles.scan_cases import cast, cotangents, expected, random_inputs

NAMES = ["reference", "associative", "pallas_triton", "pallas_mosaic"]


pytestmark = pytest.mark.usefixtures("interpreted")


def orders(seed, batch, length):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(length) for _ in range(batch)]).astype(np.int32)


def moved(a, order):
    return np.take_along_axis(a, order[:, :, None], axis=1)


@pytest.mark.parametrize("implementation", NAMES)
@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_values_and_gradients(implementation, reverse):
    arrays, options = random_inputs(5, length=9, reverse=reverse)
    arrays = cast(arrays, "float32")
    dout, dlast = (a.astype(np.float32) for a in cotangents(5, arrays))
    order = orders(6, *arrays["u"].shape[:2])
    back = np.argsort(order, axis=1)
    along = arrays | {name: moved(arrays[name], order) for name in ("u", "z")}
    out, last, grads = expected(along, options, moved(dout, order), dlast)
    want = moved(out, back), last
    want_grads = grads | {name: moved(grads[name], back) for name in ("u", "z")}

    @jax.jit
    def both(arrays, order, positions):
        fixed = {name: value for name, value in options.items() if name != "positions"}
        scan = partial(
            selective_scan,
            **fixed,
            positions=positions,
            order=order,
            return_last_state=True,
            implementation=implementation,
        )
        result, pull = jax.vjp(lambda arrays: scan(**arrays), arrays)
        return result, pull((dout, dlast))[0]

    (y, last), got_grads = both(arrays, order, options["positions"])
    assert_close(y, want[0], 1e-5, "out")
    assert_close(last, want[1], 1e-5, "last state")
    for name, value in want_grads.items():
        assert_close(got_grads[name], value, 1e-5, f"gradient of {name}")


@pytest.mark.parametrize("implementation", ["reference", "pallas_triton"])
def test_paths_share_what_they_do_not_map(implementation):
    """As PlainMamba: four orders of the same rows, their outputs added."""
    arrays, options = random_inputs(7, length=6, z=False, positions=False)
    arrays, order = cast(arrays, "float32"), np.stack([orders(s, 2, 6) for s in range(4)])
    softplus = options["delta_softplus"]

    def loss(arrays, scan_path):
        return (jax.vmap(partial(scan_path, arrays))(order).sum(axis=0) ** 2).sum()

    def in_place(arrays, order):
        return selective_scan(
            **arrays, delta_softplus=softplus, order=order, implementation=implementation
        )

    def by_hand(arrays, order):
        u = jax.numpy.take_along_axis(arrays["u"], order[:, :, None], axis=1)
        y: Any = selective_scan(
            **arrays | {"u": u}, delta_softplus=softplus, implementation="reference"
        )
        return jax.numpy.zeros_like(y).at[jax.numpy.arange(2)[:, None], order].set(y)

    got, want = (jax.jit(jax.grad(partial(loss, scan_path=f)))(arrays) for f in (in_place, by_hand))
    for name in arrays:
        assert_close(got[name], want[name], 1e-5, name)


def test_paths_without_gaps_share_their_exponentials():
    arrays, _ = random_inputs(9, length=6, z=False, positions=False)
    arrays, order = cast(arrays, "float32"), np.stack([orders(s, 2, 6) for s in range(4)])

    def scan(order, **arrays):
        return selective_scan(**arrays, order=order, implementation="reference")

    B = jax.numpy.stack([arrays.pop("B")] * 4)  # As if each path had its own.
    lowered = jax.jit(lambda a: jax.vmap(lambda o, B: scan(o, B=B, **a))(order, B)).lower(arrays)
    batch, states, channels = 2, arrays["A"].shape[1], arrays["A"].shape[0]
    exponentials = re.findall(r"stablehlo.exponential .* : tensor<(\S+)xf32>", lowered.as_text())
    assert exponentials == [f"{batch}x{states}x{channels}"]


def test_what_is_no_order_is_refused():
    arrays, _ = random_inputs(8, length=4, positions=False)
    arrays = cast(arrays, "float32")
    refused: list[tuple[Any, str]] = [
        (np.zeros((2, 4), np.int32), "each of the rows 0 to 3 once"),
        (np.zeros((2, 3), np.int32), r"of shape \(2, 4\)"),
        (np.zeros((2, 4), np.float32), "whole numbers"),
    ]
    for order, said in refused:
        with pytest.raises(ValueError, match=said):
            selective_scan(**arrays, order=order)
