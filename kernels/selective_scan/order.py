"""Rows in another order than the steps, for implementations that only know one order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def by_gathering(scan: Callable) -> Callable:
    """An implementation with `order`, made from one without: it moves rows in memory."""

    def run(u, delta, A, B, C, D, z, *rest, order: jax.Array | None = None, **options):
        if order is None:
            return scan(u, delta, A, B, C, D, z, *rest, **options)
        u, z = (None if a is None else _take(a, order) for a in (u, z))
        y, last_state = scan(u, delta, A, B, C, D, z, *rest, **options)
        return _take(y, jnp.argsort(order, axis=1)), last_state

    return run


def _take(tokens: jax.Array, order: jax.Array) -> jax.Array:
    """[B,K,E] tokens in the order [B,K]."""
    return jnp.take_along_axis(tokens, order[:, :, None], axis=1)
