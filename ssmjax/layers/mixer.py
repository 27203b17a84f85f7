"""The bidirectional Mamba mixer of Vim, on all tokens or on the kept ones."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kernels import selective_scan
from ssmjax.layers.conv import CausalConv


class Direction(nnx.Module):
    """One scan direction: causal convolution, input-dependent delta, B, C, and the scan."""

    def __init__(self, channels: int, states: int, rank: int, taps: int, *, dtype, rngs: nnx.Rngs):
        linear = nnx.initializers.truncated_normal(0.02)
        self.conv = CausalConv(channels, taps, rngs=rngs)
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

    def __call__(
        self,
        x: jax.Array,
        z: jax.Array,
        positions: jax.Array | None,
        *,
        reverse: bool,
        alignment: str,
        conv: str,
        implementation: str | None,
    ) -> jax.Array:
        """[B,K,E] inputs and gates to [B,K,E] gated scan output. See `BidirectionalMixer`."""
        u = jax.nn.silu(self.conv(x, positions if conv == "aligned" else None, reverse))
        low_rank, B, C = jnp.split(self.x_proj(u), [self.rank, self.rank + self.states], axis=-1)
        gap_delta = None
        if positions is None:
            alignment = "none"
        elif alignment == "zero_token":
            alignment, gap_delta = "constant", self._zero_token_delta()
        return selective_scan(  # pyright: ignore[reportReturnType]
            u,
            self._delta(low_rank),
            -jnp.exp(self.A_log[...]),
            B,
            C,
            self.D[...],
            z,
            delta_bias=self.dt_bias[...],
            delta_softplus=True,
            positions=positions,
            alignment=alignment,
            gap_delta=gap_delta,
            reverse=reverse,
            implementation=implementation,
        )

    def _delta(self, low_rank: jax.Array) -> jax.Array:
        """[..., R] to raw steps [..., E], in float32 (or wider) whatever the compute dtype."""
        return low_rank.astype(jnp.promote_types(low_rank.dtype, jnp.float32)) @ self.dt_kernel[...]

    def _zero_token_delta(self) -> jax.Array:
        """[E] the step that an all-zero token gets: `alignment="zero_token"`."""
        dtype = self.x_proj.dtype
        u = jax.nn.silu(self.conv.bias[...].astype(dtype))
        return jax.nn.softplus(self._delta(self.x_proj(u)[: self.rank]) + self.dt_bias[...])


class BidirectionalMixer(nnx.Module):
    """Vim's mixer (`bimamba_type="v2"`): two directions with their own parameters, averaged."""

    def __init__(
        self,
        features: int,
        expand: int,
        states: int,
        rank: int,
        taps: int,
        depth: int,
        *,
        dtype,
        rngs,
    ):
        channels = expand * features
        linear = nnx.initializers.truncated_normal(0.02)
        # One residual a block: the official initialisation divides by sqrt(depth) after
        # Kaiming uniform with a = sqrt(5), whose variance is 1 / (3 fan_in).
        out = nnx.initializers.variance_scaling(1 / (3 * depth), "fan_in", "uniform")
        self.in_proj = nnx.Linear(
            features, 2 * channels, use_bias=False, dtype=dtype, kernel_init=linear, rngs=rngs
        )
        self.forward = Direction(channels, states, rank, taps, dtype=dtype, rngs=rngs)
        self.backward = Direction(channels, states, rank, taps, dtype=dtype, rngs=rngs)
        self.out_proj = nnx.Linear(
            channels, features, use_bias=False, dtype=dtype, kernel_init=out, rngs=rngs
        )

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array | None,
        *,
        alignment: str,
        conv: str,
        implementation: str | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Mix tokens.

        Args:
          x: [B,K,D] normalised tokens.
          positions: [B,K] original positions, or None while nothing has been pruned.
          alignment: `previous`, `zero_token` or `none`; see `PruneConfig`.
          conv: `compact` or `aligned`; see `PruneConfig`.
          implementation: of the scan; see `kernels.selective_scan`.

        Returns:
          [B,K,D] mixed tokens, and [B,K,E] the sum of both gated directions, for token scores.
        """
        x, z = jnp.split(self.in_proj(x), 2, axis=-1)
        options = {"alignment": alignment, "conv": conv, "implementation": implementation}
        y = self.forward(x, z, positions, reverse=False, **options)
        y = y + self.backward(x, z, positions, reverse=True, **options)
        return self.out_proj(y / 2), y


def _inverse_softplus_of_log_uniform(key: jax.Array, channels: int) -> jax.Array:
    """Biases whose softplus is log-uniform in [1e-3, 1e-1], the official Mamba initialisation."""
    log = jax.random.uniform(key, (channels,), minval=np.log(1e-3), maxval=np.log(1e-1))
    delta = jnp.maximum(jnp.exp(log), 1e-4)
    return delta + jnp.log(-jnp.expm1(-delta))
