"""Sequential form: a `lax.scan` over tokens, with a backward pass that recomputes.

Where gradients are wanted, the forward keeps one state per `GROUP` tokens; the backward runs each
group again from it and then the adjoint recurrence through the group, so nothing of size B*K*E*N
is stored. The state is held as [B,N,E]: channels are the long, contiguous axis that the CPU's
vector units want.

How the sums are written decides the speed on a CPU: XLA sums over an inner axis one number at a
time, so sums over states and channels are matrix products, and those it could not express are
additions of slices.
"""

import functools
import operator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import recurrence

GROUP = 8  # Tokens per kept state.


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
    first = jnp.zeros((x.shape[0], *A.shape), x.dtype)
    tokens = tuple(a.swapaxes(0, 1) for a in (x, decay, B, C))
    last, y = lax.scan(partial(_token, A), first, tokens, reverse=reverse)
    return y.swapaxes(0, 1), last


def _token(A, h, inputs):
    x, decay, B, C = inputs
    h = jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None]
    return h, _sum_states(h, C)


def _recur_forward(x, decay, A, B, C, reverse):
    groups = tuple(_group(a) for a in (x, decay, B, C))

    def run(start, group):
        last, y = lax.scan(partial(_token, A), start, group, reverse=reverse)
        return last, (y, start)

    first = jnp.zeros((x.shape[0], *A.shape), x.dtype)
    last, (y, starts) = lax.scan(run, first, groups, reverse=reverse)
    return (_ungroup(y, x.shape[1]), last), (groups, A, starts)


def _recur_backward(reverse, residuals, cotangents):
    groups, A, starts = residuals
    dy, dlast = cotangents

    def token_again(h, inputs):
        x, decay, B = inputs
        return jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None], h

    def token_back(carry, inputs):
        adjoint, dA = carry  # adjoint: gradient with respect to the state after this token.
        x, decay, B, C, dy, before = inputs
        factor = jnp.exp(decay[:, None, :] * A)
        after = factor * before + x[:, None, :] * B[:, :, None]
        dC = _sum_channels(after, dy)
        adjoint = adjoint + C[:, :, None] * dy[:, None, :]
        dB, dx = _sum_channels(adjoint, x), _sum_states(adjoint, B)
        adjoint = adjoint * factor
        dexponent = adjoint * before
        products = dexponent * A
        ddecay = functools.reduce(operator.add, (products[:, n] for n in range(A.shape[0])))
        return (adjoint, dA + dexponent * decay[:, None, :]), (dx, ddecay, dB, dC)

    def run(carry, group):
        x, decay, B, C, dy, start = group
        _, before = lax.scan(token_again, start, (x, decay, B), reverse=reverse)
        tokens = (x, decay, B, C, dy, before)
        return lax.scan(token_back, carry, tokens, reverse=not reverse)

    carry = (dlast, jnp.zeros_like(dlast))
    (_, dA), grads = lax.scan(run, carry, (*groups, _group(dy), starts), reverse=not reverse)
    dx, ddecay, dB, dC = (_ungroup(g, dy.shape[1]) for g in grads)
    return dx, ddecay, dA.sum(axis=0), dB, dC


_recur.defvjp(_recur_forward, _recur_backward)


def _sum_states(h, weights):
    """[B,N,E] and [B,N] to [B,E]."""
    return jnp.einsum("bne,bn->be", h, weights, precision=lax.Precision.HIGHEST)


def _sum_channels(h, weights):
    """[B,N,E] and [B,E] to [B,N]."""
    return jnp.einsum("bne,be->bn", h, weights, precision=lax.Precision.HIGHEST)


def _group(a):
    """[B,K,...] to [K/GROUP,GROUP,B,...]. Padding has decay 0 and input 0: the state stays."""
    b, k = a.shape[:2]
    a = jnp.pad(a.swapaxes(0, 1), ((0, -k % GROUP), *((0, 0),) * (a.ndim - 1)))
    return a.reshape(-1, GROUP, b, *a.shape[2:])


def _ungroup(a, k):
    """The inverse of `_group` for a sequence of length k."""
    return a.reshape(-1, *a.shape[2:])[:k].swapaxes(0, 1)
