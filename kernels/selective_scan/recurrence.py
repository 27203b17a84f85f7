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


def step_sizes(
    delta: jax.Array, delta_bias: jax.Array | None, *, delta_softplus: bool, dtype: jnp.dtype
) -> jax.Array:
    """The step of every kept token, [B,K,E] of `dtype`."""
    step = delta.astype(dtype)
    if delta_bias is not None:
        step = step + delta_bias.astype(dtype)
    return jax.nn.softplus(step) if delta_softplus else step


def later_decays(
    step: jax.Array, gap: jax.Array, gap_delta: jax.Array | None, reverse: bool
) -> jax.Array:
    """The decays of all kept tokens but the first in scan order, whose state is still zero.

    A decay is the step plus Gamma, the sum of gamma over the gap before the token (equation 6 of
    the paper, once per pruned position).

    Args:
      step: [B,K,E].
      gap: [B,K] of step's dtype, as from `gaps`.
      gap_delta: [E] gamma; None: gamma is the step of the token before.
      reverse: scan from the last token to the first.

    Returns:
      [B,K-1,E].
    """
    later, earlier = slice(1, None), slice(None, -1)
    if reverse:
        later, earlier = earlier, later
    gamma = step[:, earlier] if gap_delta is None else gap_delta.astype(step.dtype)
    return step[:, later] + gap[:, later, None] * gamma


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
    """The step and the decay of every kept token, both [B,K,E] of `dtype`."""
    step = step_sizes(delta, delta_bias, delta_softplus=delta_softplus, dtype=dtype)
    if positions is None or alignment == "none":
        return step, step
    gap = gaps(positions, reverse).astype(dtype)
    decay = [step[:, :1], later_decays(step, gap, gap_delta, reverse)]
    if reverse:
        decay = [decay[1], step[:, -1:]]
    return step, jnp.concatenate(decay, axis=1)


def finish(y: jax.Array, u: jax.Array, D: jax.Array | None, z: jax.Array | None) -> jax.Array:
    """`(y + D u) silu(z)`, computed in y's dtype, returned in u's."""
    if D is not None:
        y = y + D.astype(y.dtype) * u.astype(y.dtype)
    if z is not None:
        y = y * jax.nn.silu(z.astype(y.dtype))
    return y.astype(u.dtype)
