"""What the implementations in plain JAX share: everything around `h = exp(decay A) h + x B`."""

import jax
import jax.numpy as jnp


def state_dtype(*arrays: jax.Array | None) -> jnp.dtype:
    """Float32, or float64 when any array is: the dtype of steps, exponentials and state."""
    return jnp.result_type(jnp.float32, *(a for a in arrays if a is not None))


def gaps(positions: jax.Array, reverse: bool) -> jax.Array:
    """[B,K] pruned positions just before each kept token in scan order; 0 at the first."""
    between = jnp.diff(positions, axis=1) - 1
    return jnp.pad(between, ((0, 0), (0, 1) if reverse else (1, 0)))


def steps(
    delta: jax.Array,
    delta_bias: jax.Array | None,
    gap_delta: jax.Array | None,
    positions: jax.Array | None,
    *,
    delta_softplus: bool,
    alignment: str,
    reverse: bool,
    dtype: jnp.dtype,
) -> tuple[jax.Array, jax.Array]:
    """The step and the decay of every kept token, both [B,K,E] of `dtype`.

    The decay is the step plus Gamma, the sum of gamma over the gap before the token
    (equation 6 of the paper, once per pruned position).
    """
    step = delta.astype(dtype)
    if delta_bias is not None:
        step = step + delta_bias.astype(dtype)
    if delta_softplus:
        step = jax.nn.softplus(step)
    if positions is None or alignment == "none":
        return step, step
    gap = gaps(positions, reverse)[..., None].astype(dtype)
    if gap_delta is not None:
        return step, step + gap * gap_delta.astype(dtype)
    shifted = step[:, 1:] if reverse else step[:, :-1]
    previous = jnp.pad(shifted, ((0, 0), (0, 1) if reverse else (1, 0), (0, 0)))
    return step, step + gap * previous


def finish(y: jax.Array, u: jax.Array, D: jax.Array | None, z: jax.Array | None) -> jax.Array:
    """`(y + D u) silu(z)`, computed in y's dtype, returned in u's."""
    if D is not None:
        y = y + D.astype(y.dtype) * u.astype(y.dtype)
    if z is not None:
        y = y * jax.nn.silu(z.astype(y.dtype))
    return y.astype(u.dtype)
