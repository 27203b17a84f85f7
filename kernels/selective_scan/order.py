"""Rows in another order than the steps, for implementations that only know one order."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from kernels.selective_scan.inputs import Scan

_Implementation = Callable[[Scan], tuple[jax.Array, jax.Array]]


def by_gathering(scan: _Implementation) -> _Implementation:
    """An implementation with `order`, made from one without: it moves rows in memory."""

    def run(inputs: Scan) -> tuple[jax.Array, jax.Array]:
        order = inputs.order
        if order is None:
            return scan(inputs)
        u, z = (None if a is None else _take(a, order) for a in (inputs.u, inputs.z))
        y, last_state = scan(replace(inputs, u=u, z=z, order=None))
        return _take(y, jnp.argsort(order, axis=1)), last_state

    return run


def _take(tokens: jax.Array, order: jax.Array) -> jax.Array:
    """[B,K,E] tokens in the order [B,K]."""
    return jnp.take_along_axis(tokens, order[:, :, None], axis=1)
