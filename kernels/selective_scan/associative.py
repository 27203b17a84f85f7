"""Parallel form by `lax.associative_scan`: the textbook reference, for short sequences.

It stores the state of every token, [B,K,E,N], so it is never the default.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import recurrence


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
    factor = jnp.exp(decay[..., None] * A.astype(dtype))
    injected = (step * u.astype(dtype))[..., None] * B.astype(dtype)[:, :, None, :]

    def combine(earlier, later):
        (a1, b1), (a2, b2) = earlier, later
        return a2 * a1, a2 * b1 + b2

    _, states = lax.associative_scan(combine, (factor, injected), reverse=reverse, axis=1)
    y = jnp.einsum("bken,bkn->bke", states, C.astype(dtype), precision=lax.Precision.HIGHEST)
    return recurrence.finish(y, u, D, z), states[:, 0 if reverse else -1]
