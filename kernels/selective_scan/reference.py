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
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import steps
from kernels.selective_scan.inputs import Scan

GROUP = 8  # Tokens per kept state.

_Results = tuple[jax.Array, jax.Array]  # y [B,K,E] and the last state [B,N,E].
_Place = tuple[jax.Array, jax.Array, jax.Array]  # A token's number, B and C.


def scan(inputs: Scan) -> tuple[jax.Array, jax.Array]:
    """See `kernels.selective_scan` and `api.Implementation`."""
    y, last = _recur(steps.prepare(inputs))
    return steps.finish(inputs, y), last.swapaxes(1, 2)


@jax.custom_vjp
def _recur(scan: Scan) -> _Results:
    """Of a scan that is prepared."""
    token = _token(scan)
    last, y = lax.scan(token, _no_state(scan), _places(scan), reverse=scan.reverse)
    return y.swapaxes(0, 1), last


def _recur_forward(scan: Scan) -> tuple[_Results, tuple[Scan, jax.Array]]:
    token = _token(scan)

    def run(start: jax.Array, group: _Place) -> tuple[jax.Array, _Results]:
        last, y = lax.scan(token, start, group, reverse=scan.reverse)
        return last, (y, start)

    last, (y, starts) = lax.scan(run, _no_state(scan), _groups(scan), reverse=scan.reverse)
    return (_ungroup(y, scan), last), (scan, starts)


def _recur_backward(residuals: tuple[Scan, jax.Array], cotangents: _Results) -> tuple[Scan]:
    scan, starts = residuals
    dy, dlast = cotangents
    drives, A, reverse = _drives(scan), scan.A.T, scan.reverse
    pruned = steps.pruned_before(scan)

    def token_again(h: jax.Array, place: _Place) -> tuple[jax.Array, jax.Array]:
        k, B, _ = place
        x, decay = drives(k)
        return jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None], h

    def token_back(carry: _Place, inputs: tuple[_Place, jax.Array]) -> tuple[_Place, Any]:
        # adjoint: gradient with respect to the state after this token; dgamma: to gamma of the
        # gap after it, if that is this token's step, or to `gap_delta`, of all gaps so far.
        adjoint, dA, dgamma = carry
        (k, B, C), before = inputs
        (x, decay), u, step, dy_k = drives(k), _at(scan.u, k), _at(scan.delta, k), _at(dy, k)
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
        if pruned is not None:
            through_gap = _at(pruned, k)[:, None] * ddecay
            if scan.gaps.delta is None:
                dstep, dgamma = dstep + dgamma, through_gap
            else:
                dgamma = dgamma + through_gap
        return (adjoint, dA + dexponent * decay[:, None, :], dgamma), (dx * step, dstep, dB, dC)

    def run(carry: _Place, group: tuple[_Place, jax.Array]) -> tuple[_Place, Any]:
        places, start = group
        _, before = lax.scan(token_again, start, places, reverse=reverse)
        return lax.scan(token_back, carry, (places, before), reverse=not reverse)

    carry = (dlast, jnp.zeros_like(dlast), jnp.zeros_like(dlast[:, 0]))
    (_, dA, dgamma), grads = lax.scan(run, carry, (_groups(scan), starts), reverse=not reverse)
    du, dstep, dB, dC = (_ungroup(g, scan) for g in grads)
    dgap_delta = None if scan.gaps.delta is None else dgamma.sum(axis=0)
    dgaps = replace(scan.gaps, positions=None, delta=dgap_delta)
    return (replace(scan, u=du, delta=dstep, A=dA.sum(axis=0).T, B=dB, C=dC, gaps=dgaps),)


_recur.defvjp(_recur_forward, _recur_backward)


def _token(scan: Scan) -> Callable[[jax.Array, _Place], tuple[jax.Array, jax.Array]]:
    """A function of the state [B,N,E] before a token and its place: the state after it, and y."""
    drives, A = _drives(scan), scan.A.T

    def token(h: jax.Array, place: _Place) -> tuple[jax.Array, jax.Array]:
        k, B, C = place
        x, decay = drives(k)
        h = jnp.exp(decay[:, None, :] * A) * h + x[:, None, :] * B[:, :, None]
        return h, _sum_states(h, C)

    return token


def _drives(scan: Scan) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """A function of a token's number that gives its x and decay, both [B,E]."""
    decays, first = scan.delta, 0  # The number of the token that has the first decay.
    pruned = steps.pruned_before(scan)
    if pruned is not None:
        decays = steps.later_decays(scan, pruned)
        first = 0 if scan.reverse else 1
    return lambda k: (_at(scan.delta, k) * _at(scan.u, k), _at(decays, k - first))


def _at(a: jax.Array, k: jax.Array) -> jax.Array:
    """[B,K,...] to [B,...] at token k, or at the nearest that there is."""
    return lax.dynamic_index_in_dim(a, k, axis=1, keepdims=False, allow_negative_indices=False)


def _no_state(scan: Scan) -> jax.Array:
    channels, states = scan.A.shape
    return jnp.zeros((scan.u.shape[0], states, channels), scan.A.dtype)


def _sum_states(h: jax.Array, weights: jax.Array) -> jax.Array:
    """[B,N,E] and [B,N] to [B,E]."""
    return jnp.einsum("bne,bn->be", h, weights, precision=lax.Precision.HIGHEST)


def _sum_channels(h: jax.Array, weights: jax.Array) -> jax.Array:
    """[B,N,E] and [B,E] to [B,N]."""
    return jnp.einsum("bne,be->bn", h, weights, precision=lax.Precision.HIGHEST)


def _places(scan: Scan, empty: int = 0) -> _Place:
    """Number, B and C along the tokens: [K], [K,B,N] and [K,B,N].

    In front, in scan order, are so many `empty` ones: B is zero there, so the state stays zero.
    """
    before, after = (0, empty) if scan.reverse else (empty, 0)
    numbers = jnp.arange(-before, scan.u.shape[1] + after)
    pad = ((before, after), (0, 0), (0, 0))
    B, C = (jnp.pad(a.swapaxes(0, 1), pad) for a in (scan.B, scan.C))
    return numbers, B, C


def _groups(scan: Scan) -> _Place:
    """`_places` as [K/GROUP,GROUP,...]."""
    places = _places(scan, empty=-scan.u.shape[1] % GROUP)
    return jax.tree.map(lambda a: a.reshape(-1, GROUP, *a.shape[1:]), places)


def _ungroup(a: jax.Array, scan: Scan) -> jax.Array:
    """What a loop over `_groups` stacked, [K/GROUP,GROUP,B,...], as [B,K,...]."""
    a, k = a.reshape(-1, *a.shape[2:]), scan.u.shape[1]
    return (a[:k] if scan.reverse else a[-k:]).swapaxes(0, 1)
