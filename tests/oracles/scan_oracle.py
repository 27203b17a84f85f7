"""The position-aligned selective scan in numpy float64: one step at a time, gradients by hand.

It follows the definition, not any implementation of it:

    step_k  = softplus(delta_k + bias)             (softplus only when asked for)
    g_k     = number of pruned positions between kept tokens k-1 and k, in scan order
    Gamma_k = g_k * step_{k-1} | g_k * gap_delta | 0       (previous | constant | none)
    h_k     = exp((step_k + Gamma_k) A) h_{k-1} + step_k B_k u_k
    out_k   = (C_k . h_k + D u_k) * silu(z_k)

The first token in scan order has no gap. `reverse` scans from the last token to the first.
"""

from typing import Any, NamedTuple

import numpy as np


class _Tape(NamedTuple):
    """What the backward pass needs, in scan order."""

    step: np.ndarray  # [B, K, E]
    gaps: np.ndarray  # [B, K]
    total: np.ndarray  # [B, K, E], step + Gamma
    states: np.ndarray  # [B, K + 1, E, N], the state before each token, then the last
    y: np.ndarray  # [B, K, E], before the gate
    out: np.ndarray


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def softplus(x):
    return np.logaddexp(0.0, x)


def _f64(x) -> Any:
    return None if x is None else np.asarray(x).astype(np.float64)


def _flip(x) -> Any:
    return None if x is None else x[:, ::-1]


def gaps_in_scan_order(positions, batch, length, reverse):
    """Pruned positions between each kept token and the one scanned before it; 0 for the first."""
    gaps = np.zeros((batch, length))
    if positions is not None:
        ordered = np.asarray(positions).astype(np.int64)
        ordered = ordered[:, ::-1] if reverse else ordered
        gaps[:, 1:] = np.abs(np.diff(ordered, axis=1)) - 1
    return gaps


def _forward(u, delta, A, B, C, D, z, bias, delta_softplus, gaps, alignment, gap_delta) -> _Tape:
    batch, length, inner = u.shape
    raw = delta if bias is None else delta + bias
    step = softplus(raw) if delta_softplus else raw
    total = step.copy()
    states = np.zeros((batch, length + 1, inner, A.shape[1]))
    y = np.zeros_like(u)
    for k in range(length):
        if alignment == "previous" and k > 0:
            total[:, k] += gaps[:, k, None] * step[:, k - 1]
        elif alignment == "constant":
            total[:, k] += gaps[:, k, None] * gap_delta
        decay = np.exp(total[:, k, :, None] * A)
        inject = (step[:, k] * u[:, k])[:, :, None] * B[:, k, None, :]
        states[:, k + 1] = decay * states[:, k] + inject
        y[:, k] = np.einsum("ben,bn->be", states[:, k + 1], C[:, k])
        if D is not None:
            y[:, k] += D * u[:, k]
    out = y if z is None else y * z * sigmoid(z)
    return _Tape(step, gaps, total, states, y, out)


def _prepare(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    *,
    delta_bias=None,
    delta_softplus=False,
    positions=None,
    alignment="previous",
    gap_delta=None,
    reverse=False,
) -> Any:
    """The arguments of `_forward`, in float64 and scan order."""
    if alignment not in ("previous", "constant", "none"):
        raise ValueError(f"unknown alignment {alignment!r}")
    u, delta, A, B, C, D, z, bias, gap_delta = map(
        _f64, (u, delta, A, B, C, D, z, delta_bias, gap_delta)
    )
    gaps = gaps_in_scan_order(positions, *u.shape[:2], reverse=reverse)
    if reverse:
        u, delta, B, C, z = map(_flip, (u, delta, B, C, z))
    return u, delta, A, B, C, D, z, bias, delta_softplus, gaps, alignment, gap_delta


def selective_scan(*inputs, reverse=False, return_last_state=False, **options) -> Any:
    """Output [B, K, E], and the state after the last scanned token [B, E, N] if asked for.

    Inputs and options are those of `_prepare`, in the library's order and by its names.
    """
    tape = _forward(*_prepare(*inputs, reverse=reverse, **options))
    out = _flip(tape.out) if reverse else tape.out
    return (out, tape.states[:, -1]) if return_last_state else out


def selective_scan_grads(dout, *inputs, reverse=False, dlast=None, **options):
    """Gradients of sum(out * dout) (+ sum(last_state * dlast)) for every input that is given."""
    args = _prepare(*inputs, reverse=reverse, **options)
    tape = _forward(*args)
    u, delta, A, B, C, D, z, bias, delta_softplus, _, alignment, gap_delta = args
    dout = _flip(_f64(dout)) if reverse else _f64(dout)

    grads = {}
    dy = dout
    if z is not None:
        gate = sigmoid(z)
        grads["z"] = dout * tape.y * gate * (1 + z * (1 - gate))
        dy = dout * z * gate
    du = np.zeros_like(u) if D is None else dy * D
    if D is not None:
        grads["D"] = (dy * u).sum((0, 1))

    dA, dB, dC, dstep = np.zeros_like(A), np.zeros_like(B), np.zeros_like(C), np.zeros_like(u)
    dgap = np.zeros(u.shape[2])
    dh = np.zeros_like(tape.states[:, 0]) if dlast is None else _f64(dlast).copy()
    for k in reversed(range(u.shape[1])):
        dC[:, k] = np.einsum("be,ben->bn", dy[:, k], tape.states[:, k + 1])
        dh = dh + dy[:, k, :, None] * C[:, k, None, :]
        # h_k = decay * h_{k-1} + step * u * B
        decay = np.exp(tape.total[:, k, :, None] * A)
        dexponent = dh * tape.states[:, k] * decay
        dA += (dexponent * tape.total[:, k, :, None]).sum(0)
        dtotal = (dexponent * A).sum(-1)
        dinject = np.einsum("ben,bn->be", dh, B[:, k])
        dB[:, k] = np.einsum("ben,be->bn", dh, tape.step[:, k] * u[:, k])
        du[:, k] += dinject * tape.step[:, k]
        dstep[:, k] += dinject * u[:, k] + dtotal
        # total_k = step_k + Gamma_k
        if alignment == "previous" and k > 0:
            dstep[:, k - 1] += tape.gaps[:, k, None] * dtotal
        elif alignment == "constant":
            dgap += (tape.gaps[:, k, None] * dtotal).sum(0)
        dh = dh * decay

    ddelta = dstep
    if delta_softplus:
        ddelta = dstep * sigmoid(delta if bias is None else delta + bias)
    if bias is not None:
        grads["delta_bias"] = ddelta.sum((0, 1))
    if gap_delta is not None:
        grads["gap_delta"] = dgap
    grads.update(u=du, delta=ddelta, A=dA, B=dB, C=dC)
    if reverse:
        grads.update(
            {name: _flip(grads[name]) for name in ("u", "delta", "B", "C", "z") if name in grads}
        )
    return grads
