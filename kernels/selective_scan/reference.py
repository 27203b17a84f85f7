"""Sequential form: a `lax.scan` over groups of tokens, with a backward pass that recomputes.

The forward keeps one state per `GROUP` tokens; the backward runs each group again from it and
then the adjoint recurrence through the group, so nothing of size B*K*E*N is stored. The state is
held as [B,N,E]: channels are the long, contiguous axis that the CPU's vector units want.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import recurrence

GROUP = 4  # Tokens per scan step, unrolled. Fastest of 1 to 16 on the CPU, forward and backward.


def scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    z: jax.Array | None,
    delta_bias: jax.Array | None,
    gap_delta: jax.Array | None,
    positions: jax.Array | None,
    *,
    delta_softplus: bool,
    alignment: str,
    reverse: bool,
) -> tuple[jax.Array, jax.Array]:
    """See `kernels.selective_scan` and `api.Implementation`."""
    dtype = recurrence.state_dtype(u, delta, A, B, C, D, z, delta_bias, gap_delta)
    step, decay = recurrence.steps(
        delta,
        delta_bias,
        gap_delta,
        positions,
        delta_softplus=delta_softplus,
        alignment=alignment,
        reverse=reverse,
        dtype=dtype,
    )
    x = step * u.astype(dtype)
    A, B, C = A.T.astype(dtype), B.astype(dtype), C.astype(dtype)
    y, last = _recur(x, decay, A, B, C, reverse)  # pyright: ignore[reportGeneralTypeIssues]
    return recurrence.finish(y, u, D, z), last.swapaxes(1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _recur(x, decay, A, B, C, reverse):
    """h = exp(decay A) h + x B; y = C . h; with A [N,E] and states [B,N,E]."""
    (y, last), _ = _recur_forward(x, decay, A, B, C, reverse)
    return y, last


def _recur_forward(x, decay, A, B, C, reverse):
    groups = tuple(_group(a) for a in (x, decay, B, C))
    order = range(GROUP)[::-1] if reverse else range(GROUP)

    def run(h, group):
        x, decay, B, C = group
        start, y = h, {}
        for t in order:
            h = _advance(h, x[t], decay[t], A, B[t])
            y[t] = jnp.sum(h * C[t][:, :, None], axis=1)
        return h, (_stack(y), start)

    first = jnp.zeros((x.shape[0], *A.shape), x.dtype)
    last, (y, starts) = lax.scan(run, first, groups, reverse=reverse)
    return (_ungroup(y, x.shape[1]), last), (groups, A, starts)


def _recur_backward(reverse, residuals, cotangents):
    groups, A, starts = residuals
    dy, dlast = cotangents
    order = range(GROUP)[::-1] if reverse else range(GROUP)

    def run(carry, group):
        adjoint, dA = carry  # adjoint: gradient with respect to the state after this group.
        x, decay, B, C, dy, h = group
        before, factor, after = {}, {}, {}  # By place in the group, as all dicts here.
        for t in order:
            before[t], factor[t] = h, jnp.exp(decay[t][:, None, :] * A)
            h = after[t] = factor[t] * h + x[t][:, None, :] * B[t][:, :, None]
        dx, ddecay, dB, dC = {}, {}, {}, {}
        for t in reversed(order):
            dC[t] = jnp.sum(after[t] * dy[t][:, None, :], axis=2)
            adjoint = adjoint + C[t][:, :, None] * dy[t][:, None, :]
            dB[t] = jnp.sum(adjoint * x[t][:, None, :], axis=2)
            dx[t] = jnp.sum(adjoint * B[t][:, :, None], axis=1)
            adjoint = adjoint * factor[t]
            dexponent = adjoint * before[t]
            ddecay[t] = jnp.sum(dexponent * A, axis=1)
            dA = dA + dexponent * decay[t][:, None, :]
        return (adjoint, dA), tuple(_stack(d) for d in (dx, ddecay, dB, dC))

    carry = (dlast, jnp.zeros_like(dlast))
    (_, dA), grads = lax.scan(run, carry, (*groups, _group(dy), starts), reverse=not reverse)
    dx, ddecay, dB, dC = (_ungroup(g, dy.shape[1]) for g in grads)
    return dx, ddecay, dA.sum(axis=0), dB, dC


_recur.defvjp(_recur_forward, _recur_backward)


def _advance(h, x, decay, A, B):
    return jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None]


def _stack(by_place):
    return jnp.stack([by_place[t] for t in range(GROUP)])


def _group(a):
    """[B,K,...] to [K/GROUP,GROUP,B,...]. Padding has decay 0 and input 0: the state stays."""
    b, k = a.shape[:2]
    a = jnp.pad(a.swapaxes(0, 1), ((0, -k % GROUP), *((0, 0),) * (a.ndim - 1)))
    return a.reshape(-1, GROUP, b, *a.shape[2:])


def _ungroup(a, k):
    """The inverse of `_group` for a sequence of length k."""
    return a.reshape(-1, *a.shape[2:])[:k].swapaxes(0, 1)
