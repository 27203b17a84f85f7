"""The scan oracle against the official numbers, finite differences and the folding trick."""

import numpy as np
import pytest

from tests.oracles import golden, scan_oracle
from tests.oracles.compare import assert_close


@pytest.mark.parametrize("name", sorted(golden.scan_cases()))
def test_golden(name):
    inputs, outputs, grads = golden.load_scan(name)
    dout = inputs.pop("dout")
    out, last = scan_oracle.selective_scan(**inputs, return_last_state=True)
    assert_close(out, outputs["out"], 1e-12)
    assert_close(last, outputs["last_state"], 1e-12)
    got = scan_oracle.selective_scan_grads(dout, **inputs)
    assert set(got) == set(grads)
    for key in grads:
        assert_close(got[key], grads[key], 1e-12, key)


def _inputs(rng, softplus, batch=2, length=5, inner=3, states=2):
    inputs = {
        "u": rng.normal(size=(batch, length, inner)),
        "delta": rng.normal(size=(batch, length, inner)),
        "A": -np.exp(rng.normal(size=(inner, states))),
        "B": rng.normal(size=(batch, length, states)),
        "C": rng.normal(size=(batch, length, states)),
        "D": rng.normal(size=inner),
        "z": rng.normal(size=(batch, length, inner)),
        "delta_bias": rng.normal(size=inner),
    }
    if not softplus:
        inputs["delta"], inputs["delta_bias"] = np.abs(inputs["delta"]), np.full(inner, 0.1)
    positions = np.stack([np.sort(rng.choice(12, length, replace=False)) for _ in range(batch)])
    return inputs, positions


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("alignment", ["previous", "constant", "none"])
def test_gradients_against_finite_differences(alignment, reverse, softplus):
    rng = np.random.default_rng(1)
    inputs, positions = _inputs(rng, softplus)
    if alignment == "constant":
        inputs["gap_delta"] = rng.uniform(0.1, 1, 3)
    options = {
        "positions": positions,
        "alignment": alignment,
        "reverse": reverse,
        "delta_softplus": softplus,
    }
    dout, dlast = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 3, 2))

    def loss(**kwargs):
        out, last = scan_oracle.selective_scan(**kwargs, **options, return_last_state=True)
        return (out * dout).sum() + (last * dlast).sum()

    grads = scan_oracle.selective_scan_grads(dout, **inputs, **options, dlast=dlast)
    assert set(grads) == set(inputs)
    for name, value in inputs.items():
        want = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            moved = [value.copy(), value.copy()]
            moved[0][index] += 1e-5
            moved[1][index] -= 1e-5
            up, down = (loss(**{**inputs, name: m}) for m in moved)
            want[index] = (up - down) / 2e-5
        assert_close(grads[name], want, 1e-8, name)


@pytest.mark.parametrize("alignment", ["previous", "constant"])
def test_folded_into_an_ordinary_scan(alignment):
    """delta' = delta + Gamma and u' = u delta / delta' turn it into a scan without gaps."""
    rng = np.random.default_rng(2)
    inputs, positions = _inputs(rng, softplus=False)
    del inputs["z"], inputs["delta_bias"]
    gap_delta = rng.uniform(0.1, 1, 3) if alignment == "constant" else None
    gaps = np.diff(positions, axis=1, prepend=positions[:, :1] - 1)[:, :, None] - 1
    gamma = gap_delta if alignment == "constant" else np.roll(inputs["delta"], 1, axis=1)
    folded = inputs["delta"] + gaps * gamma
    want = scan_oracle.selective_scan(
        **inputs, positions=positions, alignment=alignment, gap_delta=gap_delta
    )
    scaled = {**inputs, "delta": folded, "u": inputs["u"] * inputs["delta"] / folded, "D": None}
    got = scan_oracle.selective_scan(**scaled) + inputs["D"] * inputs["u"]
    assert_close(got, want, 1e-14)
    assert np.abs(scan_oracle.selective_scan(**inputs) - want).max() > 1e-2


def test_two_tokens_by_hand():
    """Positions 1 and 4: two pruned between them, each moving the state by the first's step."""
    one = np.ones((1, 2, 1))
    out, last = scan_oracle.selective_scan(
        one * [[[3.0], [5.0]]],
        one * [[[0.5], [0.25]]],
        -np.ones((1, 1)),
        one,
        2 * one,
        positions=np.array([[1, 4]]),
        return_last_state=True,
    )
    second = np.exp(-(0.25 + 2 * 0.5)) * 1.5 + 0.25 * 5
    assert_close(out[0, :, 0], [3.0, 2 * second], 1e-15)
    assert_close(last, [[[second]]], 1e-15)
    out = scan_oracle.selective_scan(
        one * [[[3.0], [5.0]]],
        one * [[[0.5], [0.25]]],
        -np.ones((1, 1)),
        one,
        2 * one,
        positions=np.array([[1, 4]]),
        reverse=True,
    )
    first = np.exp(-(0.5 + 2 * 0.25)) * 1.25 + 1.5
    assert_close(out[0, :, 0], [2 * first, 2.5], 1e-15)
