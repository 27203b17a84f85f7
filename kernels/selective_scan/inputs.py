"""What a selective scan takes, as one object: all implementations have the same argument.

`Scan` and `Gaps` are pytrees of their arrays, so that a whole scan can be mapped, differentiated
and kept for a backward pass; their options are static.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

STATIC = {"static": True}  # Marks an option: no array.


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaps:
    """How kept tokens lie among the pruned ones.

    Attributes:
      positions: [B,K] int32 original positions of the kept tokens; None: nothing is pruned.
      alignment: gamma of a pruned position: `previous`, the step of the kept token before it;
        `constant`, `delta`; `none`, zero.
      delta: [E] positive steps, with `constant`.
    """

    positions: jax.Array | None = None
    alignment: str = field(default="previous", metadata=STATIC)
    delta: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scan:
    """A selective scan; `kernels.selective_scan` says what it computes of these.

    Attributes:
      u: [B,K,E] input.
      delta: [B,K,E] step sizes; raw when `softplus`.
      A: [E,N] negative real diagonal.
      B: [B,K,N] input projection.
      C: [B,K,N] output projection.
      D: [E] skip connection.
      z: [B,K,E] gate.
      delta_bias: [E], added to delta before the softplus.
      gaps: what was pruned between the tokens.
      order: [B,K] int32, the row of u, z and the output at which each step of the scan works; None:
        every step at its own.
      softplus: whether steps are the softplus of `delta + delta_bias`, or the sum itself.
      reverse: whether the last token comes first.
    """

    u: jax.Array
    delta: jax.Array
    A: jax.Array
    B: jax.Array
    C: jax.Array
    D: jax.Array | None = None
    z: jax.Array | None = None
    delta_bias: jax.Array | None = None
    gaps: Gaps = Gaps()
    order: jax.Array | None = None
    softplus: bool = field(default=False, metadata=STATIC)
    reverse: bool = field(default=False, metadata=STATIC)

    @property
    def dtype(self) -> jnp.dtype:
        """Float32, or float64 when any array is: that of steps, exponentials and state."""
        return jnp.result_type(jnp.float32, *jax.tree.leaves(self))

    @property
    def steps(self) -> jax.Array:
        """[B,K,E], of the state's dtype."""
        step = self.delta.astype(self.dtype)
        if self.delta_bias is not None:
            step = step + self.delta_bias.astype(self.dtype)
        return jax.nn.softplus(step) if self.softplus else step
