"""What the mixers of all families share: the input-dependent delta, B and C, and A and D."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kernels.selective_scan import Gaps, Scan
from ssmjax.layers.initial import linear, residual_uniform, step_bias
from ssmjax.precision import widened


class MixerSizes(NamedTuple):
    """The sizes of a mixer.

    Attributes:
      features: D, the width of a token.
      channels: E, inner channels.
      states: N, states per channel.
      rank: R, rank of delta.
      depth: blocks of the model, the more the smaller `out_projection` starts.
      dtype: compute dtype.
    """

    features: int
    channels: int
    states: int
    rank: int
    depth: int
    dtype: jnp.dtype


class SelectiveSSM(nnx.Module):
    """The parameters of one selective scan over E channels with N states."""

    def __init__(self, sizes: MixerSizes, *, rngs: nnx.Rngs):
        channels, states, rank = sizes.channels, sizes.states, sizes.rank
        options = {"use_bias": False, "dtype": sizes.dtype, "rngs": rngs}
        self.x_proj = linear(channels, rank + 2 * states, **options)
        bound = rank**-0.5
        self.dt_kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (rank, channels), minval=-bound, maxval=bound)
        )
        self.dt_bias = nnx.Param(step_bias(rngs.params(), channels))
        self.A_log = nnx.Param(jnp.tile(jnp.log(jnp.arange(1.0, states + 1)), (channels, 1)))
        self.D = nnx.Param(jnp.ones(channels))
        self.rank, self.states = rank, states

    @property
    def delta_bias(self) -> jax.Array:
        """[E] what is added to raw steps before the softplus."""
        return self.dt_bias[...]

    def project(self, u: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[...,E] to raw steps [...,E] in float32 or wider, B [...,N] and C [...,N]."""
        low_rank, B, C = jnp.split(self.x_proj(u), [self.rank, self.rank + self.states], axis=-1)
        return self._delta(low_rank), B, C

    def step(self, raw: jax.Array) -> jax.Array:
        """Raw steps [...,E] to steps, all positive."""
        return jax.nn.softplus(raw + self.delta_bias)

    def gaps(self, positions, alignment: str, conv_bias: jax.Array) -> Gaps:
        """What the scan sees of pruned tokens, for a `PruneConfig.alignment`.

        `zero_token` is the step that an all-zero token gets: its convolution is the bias alone.
        """
        if positions is None:
            return Gaps()
        if alignment != "zero_token":
            return Gaps(positions, alignment)
        u = jax.nn.silu(conv_bias.astype(self.x_proj.dtype))
        return Gaps(positions, "constant", self.step(self.project(u)[0]))

    def inputs(
        self,
        u: jax.Array,
        delta: jax.Array,
        B: jax.Array,
        C: jax.Array,
        gaps: Gaps,
        *,
        order: jax.Array | None = None,
        reverse: bool = False,
    ) -> Scan:
        """The scan of [B,K,E] tokens u with these parameters; delta, B and C as `project` gives."""
        return Scan(
            u,
            delta,
            -jnp.exp(self.A_log[...]),
            B,
            C,
            self.D[...],
            delta_bias=self.delta_bias,
            gaps=gaps,
            order=order,
            softplus=True,
            reverse=reverse,
        )

    def _delta(self, low_rank: jax.Array) -> jax.Array:
        """[..., R] to raw steps [..., E], in float32 (or wider) whatever the compute dtype."""
        return widened(low_rank) @ self.dt_kernel[...]


def in_projection(sizes: MixerSizes, **options: Any) -> nnx.Linear:
    """Tokens [...,D] to what is scanned and its gate, [...,2E]; `options` of `nnx.Linear`."""
    return linear(sizes.features, 2 * sizes.channels, dtype=sizes.dtype, **options)


def out_projection(sizes: MixerSizes, **options: Any) -> nnx.Linear:
    """Gated outputs [...,E] to tokens [...,D]; `options` of `nnx.Linear`."""
    options |= {"dtype": sizes.dtype, "kernel_init": residual_uniform(sizes.depth)}
    return nnx.Linear(sizes.channels, sizes.features, **options)
