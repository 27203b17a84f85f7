"""The hidden attention of a selective scan: the matrix that it applies to its input.

A scan is linear in its input: in every channel `y_i = sum_j alpha[i,j] u_j + D u_i`, so alpha is to
a scan what a head's weights are to attention ("The Hidden Attention of Mamba Models", arXiv
2403.01590). Here it knows the gaps of pruned tokens.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan.recurrence import state_dtype, steps


def hidden_attention(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    *,
    delta_bias: jax.Array | None = None,
    delta_softplus: bool = False,
    positions: jax.Array | None = None,
    alignment: str = "previous",
    gap_delta: jax.Array | None = None,
    reverse: bool = False,
    order: jax.Array | None = None,
) -> jax.Array:
    """The matrix that a selective scan applies to its input, in every channel::

        alpha[i,j] = sum_n C[i,n] B[j,n] step_j exp(A_n (S_i - S_j))

    for tokens j that the scan has read when it writes token i, and 0 for the others; S is the
    cumulative sum of `step + Gamma` in scan order. As A is negative and S grows, no exponential
    exceeds 1; in float32 its exponent is known to about 1e-7 of A S.

    Args:
      u, delta, A, B, C, D and the rest: as `kernels.selective_scan` takes them; alpha depends on
        neither u nor D.

    Returns:
      [B,E,K,K] in float32 (or wider), rows and columns in the order of u's tokens, whatever the
      order of the scan.
    """
    dtype = state_dtype(u, delta, A, B, C, D, delta_bias, gap_delta)
    step, decay = steps(
        delta,
        delta_bias,
        gap_delta,
        positions,
        delta_softplus=delta_softplus,
        alignment=alignment,
        reverse=reverse,
        dtype=dtype,
    )
    step, S = (jnp.swapaxes(a, 1, 2) for a in (step, lax.cumsum(decay, axis=1, reverse=reverse)))
    read = jnp.tri(u.shape[1], dtype=bool)
    between = jnp.where(read.T if reverse else read, S[..., None] - S[..., None, :], jnp.inf)

    def add_state(total, state):
        A_n, B_n, C_n = state
        products = C_n[:, None, :, None] * B_n[:, None, None, :]
        return total + products * jnp.exp(A_n[:, None, None] * between), None

    states = (jnp.moveaxis(a.astype(dtype), -1, 0) for a in (A, B, C))
    alpha, _ = lax.scan(add_state, jnp.zeros_like(between), tuple(states))
    alpha = alpha * step[..., None, :]
    if order is None:
        return alpha
    step_of = jnp.argsort(order, axis=1)[:, None]
    alpha = jnp.take_along_axis(alpha, step_of[..., None], axis=2)
    return jnp.take_along_axis(alpha, step_of[..., None, :], axis=3)


def mean_attention(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    *,
    gradient: jax.Array | None = None,
    delta_bias: jax.Array | None = None,
    gap_delta: jax.Array | None = None,
    **options,
) -> jax.Array:
    """The mean over channels of `hidden_attention`, channel by channel: [B,E,K,K] is never formed.

    Args:
      u, delta, A, B, C, D and the rest: as `hidden_attention` takes them.
      gradient: [B,K,E] of a number with respect to the scan's output y, whose derivative by
        alpha[i,j] is `gradient_i u_j`.

    Returns:
      [B,K,K] non-negative: the mean of |alpha|, or with `gradient` that of the positive part of
      alpha times that derivative. Absolute values, since the sign of a channel means nothing.
    """

    def by_channel(a):
        """[...,E] to [E,...,1], so that each channel is an input of its own."""
        return None if a is None else jnp.moveaxis(a, -1, 0)[..., None]

    def add_channel(total, channel):
        arguments, gradient = channel
        alpha = hidden_attention(**arguments, B=B, C=C, **options)[:, 0]
        if gradient is None:
            return total + jnp.abs(alpha), None
        return total + jax.nn.relu(alpha * gradient * jnp.swapaxes(arguments["u"], 1, 2)), None

    arguments = {"u": u, "delta": delta, "delta_bias": delta_bias, "gap_delta": gap_delta}
    arguments = {name: by_channel(a) for name, a in arguments.items()} | {"A": A[:, None]}
    batch, length, channels = u.shape
    dtype = state_dtype(u, delta, A, B, C, gradient, delta_bias, gap_delta)
    nothing = jnp.zeros((batch, length, length), dtype)
    total, _ = lax.scan(add_channel, nothing, (arguments, by_channel(gradient)))
    return total / channels
