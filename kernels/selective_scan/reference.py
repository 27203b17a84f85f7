"""Sequential form: a `lax.scan` over tokens, with a backward pass that recomputes.

Where gradients are wanted, the forward keeps one state per `GROUP` tokens; the backward runs each
group again from it and then the adjoint recurrence through the group, so nothing of size B*K*E*N
is stored. The state is held as [B,N,E]: channels are the long, contiguous axis that the CPU's
vector units want.

How things are written decides the speed on a CPU. XLA sums over an inner axis one number at a
time, so sums over states and channels are matrix products, and those it could not express are
additions of slices. It moves or shifts [B,K,E] in passes of their own, shifts one number at a
time, so the loops read the token that they are at in place, and decays are made of slices.
"""

import functools
import operator
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import recurrence

GROUP = 8  # Tokens per kept state.


class Tokens(NamedTuple):
    """What drives the recurrence, all of the state's dtype.

    Attributes:
      u: [B,K,E].
      step: [B,K,E].
      B: [B,K,N].
      C: [B,K,N].
      gap: [B,K], as from `recurrence.gaps`; None: every decay is the step.
      gap_delta: [E], gamma of every gap; None: gamma is the step of the token before.
    """

    u: jax.Array
    step: jax.Array
    B: jax.Array
    C: jax.Array
    gap: jax.Array | None
    gap_delta: jax.Array | None


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
    step = recurrence.step_sizes(delta, delta_bias, delta_softplus=delta_softplus, dtype=dtype)
    gap = None
    if positions is not None and alignment != "none" and u.shape[1] > 1:
        gap = recurrence.gaps(positions, reverse).astype(dtype)
    gap_delta = None if gap is None or gap_delta is None else gap_delta.astype(dtype)
    tokens = Tokens(u.astype(dtype), step, B.astype(dtype), C.astype(dtype), gap, gap_delta)
    y, last = _recur(tokens, A.T.astype(dtype), reverse)  # pyright: ignore[reportGeneralTypeIssues]
    return recurrence.finish(y, u, D, z), last.swapaxes(1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _recur(tokens, A, reverse):
    """h = exp(decay A) h + x B; y = C . h; with A [N,E] and states [B,N,E]."""
    token = partial(_token, _drives(tokens, reverse), A)
    last, y = lax.scan(token, _no_state(tokens, A), _places(tokens, reverse), reverse=reverse)
    return y.swapaxes(0, 1), last


def _recur_forward(tokens, A, reverse):
    token = partial(_token, _drives(tokens, reverse), A)

    def run(start, group):
        last, y = lax.scan(token, start, group, reverse=reverse)
        return last, (y, start)

    groups = _groups(tokens, reverse)
    last, (y, starts) = lax.scan(run, _no_state(tokens, A), groups, reverse=reverse)
    return (_ungroup(y, tokens, reverse), last), (tokens, A, starts)


def _recur_backward(reverse, residuals, cotangents):
    tokens, A, starts = residuals
    dy, dlast = cotangents
    drives = _drives(tokens, reverse)

    def token_again(h, place):
        k, B, _ = place
        x, decay = drives(k)
        return jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None], h

    def token_back(carry, inputs):
        # adjoint: gradient with respect to the state after this token; dgamma: to gamma of the
        # gap after it, if that is this token's step, or to `gap_delta`, of all gaps so far.
        adjoint, dA, dgamma = carry
        (k, B, C), before = inputs
        (x, decay), u, step, dy_k = drives(k), _at(tokens.u, k), _at(tokens.step, k), _at(dy, k)
        factor = jnp.exp(decay[:, None, :] * A)
        after = factor * before + x[:, None, :] * B[:, :, None]
        dC = _sum_channels(after, dy_k)
        adjoint = adjoint + C[:, :, None] * dy_k[:, None, :]
        dB, dx = _sum_channels(adjoint, x), _sum_states(adjoint, B)
        adjoint = adjoint * factor
        dexponent = adjoint * before
        products = dexponent * A
        ddecay = functools.reduce(operator.add, (products[:, n] for n in range(A.shape[0])))
        dstep = dx * u + ddecay
        if tokens.gap is not None:
            through_gap = _at(tokens.gap, k)[:, None] * ddecay
            if tokens.gap_delta is None:
                dstep, dgamma = dstep + dgamma, through_gap
            else:
                dgamma = dgamma + through_gap
        return (adjoint, dA + dexponent * decay[:, None, :], dgamma), (dx * step, dstep, dB, dC)

    def run(carry, group):
        places, start = group
        _, before = lax.scan(token_again, start, places, reverse=reverse)
        return lax.scan(token_back, carry, (places, before), reverse=not reverse)

    carry = (dlast, jnp.zeros_like(dlast), jnp.zeros_like(dlast[:, 0]))
    groups = (_groups(tokens, reverse), starts)
    (_, dA, dgamma), grads = lax.scan(run, carry, groups, reverse=not reverse)
    dgap_delta = None if tokens.gap_delta is None else dgamma.sum(axis=0)
    grads = (_ungroup(g, tokens, reverse) for g in grads)
    return Tokens(*grads, gap=None, gap_delta=dgap_delta), dA.sum(axis=0)


_recur.defvjp(_recur_forward, _recur_backward)


def _token(drives, A, h, place):
    """One token: the state [B,N,E] after it, and y [B,E]."""
    k, B, C = place
    x, decay = drives(k)
    h = jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None]
    return h, _sum_states(h, C)


def _drives(tokens: Tokens, reverse: bool) -> Callable:
    """A function of a token's number that gives its x and decay, both [B,E]."""
    decays, first = tokens.step, 0  # The number of the token that has the first decay.
    if tokens.gap is not None:
        decays = recurrence.later_decays(tokens.step, tokens.gap, tokens.gap_delta, reverse)
        first = 0 if reverse else 1
    return lambda k: (_at(tokens.step, k) * _at(tokens.u, k), _at(decays, k - first))


def _at(a, k):
    """[B,K,...] to [B,...] at token k, or at the nearest that there is."""
    return lax.dynamic_index_in_dim(a, k, axis=1, keepdims=False, allow_negative_indices=False)


def _no_state(tokens, A):
    return jnp.zeros((tokens.u.shape[0], *A.shape), A.dtype)


def _sum_states(h, weights):
    """[B,N,E] and [B,N] to [B,E]."""
    return jnp.einsum("bne,bn->be", h, weights, precision=lax.Precision.HIGHEST)


def _sum_channels(h, weights):
    """[B,N,E] and [B,E] to [B,N]."""
    return jnp.einsum("bne,be->bn", h, weights, precision=lax.Precision.HIGHEST)


def _places(tokens, reverse, empty=0):
    """Number, B and C along the tokens: [K], [K,B,N] and [K,B,N].

    In front, in scan order, are so many `empty` ones: B is zero there, so the state stays zero.
    """
    before, after = (0, empty) if reverse else (empty, 0)
    numbers = jnp.arange(-before, tokens.u.shape[1] + after)
    pad = ((before, after), (0, 0), (0, 0))
    return numbers, *(jnp.pad(a.swapaxes(0, 1), pad) for a in (tokens.B, tokens.C))


def _groups(tokens, reverse):
    """`_places` as [K/GROUP,GROUP,...]."""
    places = _places(tokens, reverse, empty=-tokens.u.shape[1] % GROUP)
    return jax.tree.map(lambda a: a.reshape(-1, GROUP, *a.shape[1:]), places)


def _ungroup(a, tokens, reverse):
    """What a loop over `_groups` stacked, [K/GROUP,GROUP,B,...], as [B,K,...]."""
    a, k = a.reshape(-1, *a.shape[2:]), tokens.u.shape[1]
    return (a[:k] if reverse else a[-k:]).swapaxes(0, 1)
