"""What a selective scan takes, as one object: all implementations have the same argument.

`Scan` and `Gaps` are pytrees of their arrays, so that a whole scan can be mapped, differentiated
and kept for a backward pass; their options are static.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from kernels.array_types import Channels, ChannelStates, InnerTokens, Positions, TokenStates

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

    positions: Positions | None = None
    alignment: str = field(default="previous", metadata=STATIC)
    delta: Channels | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scan:
    """The arguments of `kernels.selective_scan`, checked; its docstring says what each means.

    Attributes:
      gaps: its `positions` (as int32), `alignment` and `gap_delta`.
      order: int32.
      softplus: its `delta_softplus`.
    """

    u: InnerTokens
    delta: InnerTokens
    A: ChannelStates
    B: TokenStates
    C: TokenStates
    D: Channels | None = None
    z: InnerTokens | None = None
    delta_bias: Channels | None = None
    gaps: Gaps = Gaps()
    order: Positions | None = None
    softplus: bool = field(default=False, metadata=STATIC)
    reverse: bool = field(default=False, metadata=STATIC)

    @property
    def dtype(self) -> jnp.dtype:
        """Float32, or float64 when any array is: that of steps, exponentials and state."""
        return jnp.result_type(jnp.float32, *jax.tree.leaves(self))

    @property
    def steps(self) -> InnerTokens:
        """Of the state's dtype."""
        step = self.delta.astype(self.dtype)
        if self.delta_bias is not None:
            step = step + self.delta_bias.astype(self.dtype)
        return jax.nn.softplus(step) if self.softplus else step
