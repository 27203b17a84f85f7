"""Parallel form by `lax.associative_scan`: the textbook reference, for short sequences.

It stores the state of every token, [B,K,E,N], so it is never the default.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kernels.selective_scan import steps
from kernels.selective_scan.inputs import Scan

_Step = tuple[jax.Array, jax.Array]  # A factor of the state, and what is added to it.


def scan(inputs: Scan) -> tuple[jax.Array, jax.Array]:
    """See `kernels.selective_scan` and `api.Implementation`."""
    prepared = steps.prepare(inputs)
    factor = jnp.exp(steps.decays(prepared)[..., None] * prepared.A)
    injected = (prepared.delta * prepared.u)[..., None] * prepared.B[:, :, None, :]

    def combine(earlier: _Step, later: _Step) -> _Step:
        (a1, b1), (a2, b2) = earlier, later
        return a2 * a1, a2 * b1 + b2

    reverse = inputs.reverse
    _, states = lax.associative_scan(combine, (factor, injected), reverse=reverse, axis=1)
    y = jnp.einsum("bken,bkn->bke", states, prepared.C, precision=lax.Precision.HIGHEST)
    return steps.finish(inputs, y), states[:, 0 if reverse else -1]
