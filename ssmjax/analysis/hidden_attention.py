"""The hidden attention of a selective scan: the matrix that it applies to its input.

A scan is linear in its input: in every channel `y_i = sum_j alpha[i,j] u_j + D u_i`, so alpha is to
a scan what a head's weights are to attention ("The Hidden Attention of Mamba Models", arXiv
2403.01590). Here it knows the gaps of pruned tokens.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import Scan
from kernels.selective_scan.steps import decays, prepare


def hidden_attention(inputs: Scan) -> jax.Array:
    """The matrix that a selective scan applies to its input, in every channel::

        alpha[i,j] = sum_n C[i,n] B[j,n] step_j exp(A_n (S_i - S_j))

    for tokens j that the scan has read when it writes token i, and 0 for the others; S is the
    cumulative sum of `step + Gamma` in scan order. As A is negative and S grows, no exponential
    exceeds 1; in float32 its exponent is known to about 1e-7 of A S.

    Args:
      inputs: a scan; alpha depends on none of its u, D and z.

    Returns:
      [B,E,K,K] in float32 (or wider), rows and columns in the order of u's tokens, whatever the
      order of the scan.
    """
    prepared, reverse, order = prepare(inputs), inputs.reverse, inputs.order
    step, S = prepared.delta, lax.cumsum(decays(prepared), axis=1, reverse=reverse)
    step, S = (jnp.swapaxes(a, 1, 2) for a in (step, S))
    read = jnp.tri(step.shape[2], dtype=bool)
    between = jnp.where(read.T if reverse else read, S[..., None] - S[..., None, :], jnp.inf)

    def add_state(total, state):
        A_n, B_n, C_n = state
        products = C_n[:, None, :, None] * B_n[:, None, None, :]
        return total + products * jnp.exp(A_n[:, None, None] * between), None

    states = (jnp.moveaxis(a, -1, 0) for a in (prepared.A, prepared.B, prepared.C))
    alpha, _ = lax.scan(add_state, jnp.zeros_like(between), tuple(states))
    alpha = alpha * step[..., None, :]
    if order is None:
        return alpha
    step_of = jnp.argsort(order, axis=1)[:, None]
    alpha = jnp.take_along_axis(alpha, step_of[..., None], axis=2)
    return jnp.take_along_axis(alpha, step_of[..., None, :], axis=3)


def mean_attention(inputs: Scan, gradient: jax.Array | None = None) -> jax.Array:
    """The mean over channels of `hidden_attention`, channel by channel: [B,E,K,K] is never formed.

    Args:
      inputs: a scan.
      gradient: [B,K,E] of a number with respect to the scan's output y, whose derivative by
        alpha[i,j] is `gradient_i u_j`.

    Returns:
      [B,K,K] non-negative: the mean of |alpha|, or with `gradient` that of the positive part of
      alpha times that derivative. Absolute values, since the sign of a channel means nothing.
    """
    inputs = replace(inputs, D=None, z=None)
    batch, length, channels = inputs.u.shape
    dtype = jnp.result_type(inputs.dtype, *jax.tree.leaves(gradient))

    def add_channel(total, channel):
        fields, gap_delta, gradient = channel
        one = replace(inputs, **fields, gaps=replace(inputs.gaps, delta=gap_delta))
        alpha = hidden_attention(one)[:, 0]
        if gradient is None:
            return total + jnp.abs(alpha), None
        return total + jax.nn.relu(alpha * gradient * jnp.swapaxes(one.u, 1, 2)), None

    def by_channel(a):
        """[...,E] to [E,...,1], so that each channel is an input of its own."""
        return None if a is None else jnp.moveaxis(a, -1, 0)[..., None]

    fields = {name: by_channel(getattr(inputs, name)) for name in ("u", "delta", "delta_bias")}
    fields["A"] = inputs.A[:, None]
    by_channels = fields, by_channel(inputs.gaps.delta), by_channel(gradient)
    total, _ = lax.scan(add_channel, jnp.zeros((batch, length, length), dtype), by_channels)
    return total / channels
