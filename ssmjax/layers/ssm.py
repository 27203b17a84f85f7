"""What the mixers of all families share: the input-dependent delta, B and C, and A and D."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kernels.selective_scan import Gaps, Scan


class SelectiveSSM(nnx.Module):
    """The parameters of one selective scan over E channels with N states."""

    def __init__(self, channels: int, states: int, rank: int, *, dtype, rngs: nnx.Rngs):
        linear = nnx.initializers.truncated_normal(0.02)
        self.x_proj = nnx.Linear(
            channels, rank + 2 * states, use_bias=False, dtype=dtype, kernel_init=linear, rngs=rngs
        )
        bound = rank**-0.5
        self.dt_kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (rank, channels), minval=-bound, maxval=bound)
        )
        self.dt_bias = nnx.Param(_inverse_softplus_of_log_uniform(rngs.params(), channels))
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
        return low_rank.astype(jnp.promote_types(low_rank.dtype, jnp.float32)) @ self.dt_kernel[...]


def out_projection(depth: int):
    """The official initialiser of `out_proj`: one residual a block, so divided by sqrt(depth).

    Kaiming uniform with a = sqrt(5), whose variance is 1 / (3 fan_in).
    """
    return nnx.initializers.variance_scaling(1 / (3 * depth), "fan_in", "uniform")


def _inverse_softplus_of_log_uniform(key: jax.Array, channels: int) -> jax.Array:
    """Biases whose softplus is log-uniform in [1e-3, 1e-1], the official Mamba initialisation."""
    log = jax.random.uniform(key, (channels,), minval=np.log(1e-3), maxval=np.log(1e-1))
    delta = jnp.maximum(jnp.exp(log), 1e-4)
    return delta + jnp.log(-jnp.expm1(-delta))
