"""The mixers of both families, on all tokens or on the kept ones.

`alignment` is that of `ssmjax.PruneConfig`, `implementation` that of `kernels.selective_scan`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kernels.array_types import Tokens, TokensAndFrozen
from kernels.selective_scan import Scan, run_scan
from ssmjax.layers.conv import CausalConv, Cells, GridConv
from ssmjax.layers.initial import NORMAL
from ssmjax.layers.ssm import MixerSizes, SelectiveSSM, in_projection, out_projection
from ssmjax.pruning.select import gather_tokens
from ssmjax.pruning.strategies.strategy import Signals

# The scan itself, or another function of what it takes, such as `ssmjax.analysis` has.
OfScan = Callable[[Scan], Any]


class Neighbours(NamedTuple):
    """How the kept tokens of a sequence lie.

    Attributes:
      positions: [B,K] int32 original positions, whose gaps the scan sees; None while nothing is
        pruned.
      conv_positions: the same where convolutions see the gaps too; None: to convolutions, kept
        tokens are neighbours.
    """

    positions: jax.Array | None
    conv_positions: jax.Array | None


class Direction(SelectiveSSM):
    """One scan direction: a causal convolution, then the scan, with parameters of its own."""

    def __init__(self, sizes: MixerSizes, taps: int, *, rngs: nnx.Rngs):
        self.conv = CausalConv(sizes.channels, taps, rngs=rngs)
        super().__init__(sizes, rngs=rngs)

    def __call__(
        self, scan: OfScan, x: jax.Array, layout: Neighbours, *, reverse: bool, alignment: str
    ) -> Any:
        """What `scan` makes of this direction's [B,K,E] inputs."""
        u = jax.nn.silu(self.conv(x, layout.conv_positions, reverse))
        gaps = self.gaps(layout.positions, alignment, self.conv.bias[...])
        return scan(self.inputs(u, *self.project(u), gaps, reverse=reverse))


class BidirectionalMixer(nnx.Module):
    """Vim's mixer (`bimamba_type="v2"`): two directions with their own parameters, averaged."""

    def __init__(self, sizes: MixerSizes, taps: int, *, rngs: nnx.Rngs):
        self.in_proj = in_projection(sizes, use_bias=False, rngs=rngs)
        self.forward = Direction(sizes, taps, rngs=rngs)
        self.backward = Direction(sizes, taps, rngs=rngs)
        self.out_proj = out_projection(sizes, use_bias=False, rngs=rngs)

    def __call__(
        self, x: Tokens, layout: Neighbours, *, alignment: str, implementation: str | None
    ) -> tuple[Tokens, Signals]:
        """Mix normalised tokens.

        Also returns what token scores need: what entered `out_proj`, and the mean steps of both
        directions.
        """
        x, z = jnp.split(self.in_proj(x), 2, axis=-1)

        def scan(inputs):
            y, _ = run_scan(replace(inputs, z=z), implementation)
            return y, inputs.steps

        y, step = self.over_scans(scan, x, layout, alignment)
        return self.out_proj(y), Signals(y, step)

    def over_scans(self, scan: OfScan, x: jax.Array, layout: Neighbours, alignment: str) -> Any:
        """The mean of what `scan` makes of both directions' scans, whose gate is still missing.

        `x` [B,K,E] is what is scanned, the first half of what `in_proj` gives; the other half is
        the gate.
        """
        forward = self.forward(scan, x, layout, reverse=False, alignment=alignment)
        backward = self.backward(scan, x, layout, reverse=True, alignment=alignment)
        return jax.tree.map(lambda one, other: (one + other) / 2, forward, backward)


class Paths(NamedTuple):
    """How the kept tokens lie on PlainMamba's grid and along its four paths.

    Attributes:
      order: [4,B,K] int32, the kept token read at each step of a path.
      direction: [4,B,K] int32, the move that led to each step; see `scan_paths`.
      steps: [4,B,K] int32, the original step of each kept step; None while nothing is pruned.
      cells: what the convolutions see.
      frozen: [B,P,D] other tokens, which convolutions alone see; None: there are none.
    """

    order: jax.Array
    direction: jax.Array
    steps: jax.Array | None
    cells: Cells
    frozen: jax.Array | None = None

    def with_frozen(self, x: jax.Array) -> jax.Array:
        """Tokens [B,K,D], followed by the frozen ones."""
        return x if self.frozen is None else jnp.concatenate([x, self.frozen], axis=1)


class PathMixer(SelectiveSSM):
    """PlainMamba's mixer: one set of parameters, scanned along four paths and summed.

    As in the official layer, only `u` follows a path; delta, B and C stay in raster order unless
    `paired`. The bias of delta counts twice: once in `dt_proj`, once in the scan.
    """

    def __init__(self, sizes: MixerSizes, conv_size: int, *, paired: bool, rngs: nnx.Rngs):
        self.in_proj = in_projection(sizes, use_bias=True, rngs=rngs)
        self.conv = GridConv(sizes.channels, conv_size, use_bias=True, rngs=rngs)
        super().__init__(sizes, rngs=rngs)
        self.direction_B = nnx.Param(NORMAL(rngs.params(), (5, sizes.states)))
        self.out_proj = out_projection(sizes, use_bias=True, rngs=rngs)
        self.paired = paired

    @property
    def delta_bias(self) -> jax.Array:
        """[E], the bias of `dt_proj` twice."""
        return 2 * self.dt_bias[...]

    def __call__(
        self, x: TokensAndFrozen, paths: Paths, *, alignment: str, implementation: str | None
    ) -> tuple[Tokens, Signals]:
        """Mix normalised tokens, which are followed by the frozen ones, if `paths` has such.

        Also returns what token scores need: what entered `out_proj`, and the steps in raster order.
        """
        present = paths.order.shape[-1]
        x, frozen = x[:, :present], x[:, present:]
        x, z = jnp.split(self.in_proj(x), 2, axis=-1)
        if paths.frozen is not None:
            x = jnp.concatenate([x, self._project_unscanned(frozen)], axis=1)

        def scan(inputs):
            return run_scan(inputs, implementation)[0]

        y = self.over_scans(scan, x, paths, alignment) * jax.nn.silu(z)
        # Where no score needs the steps, nothing of them is computed.
        delta, _, _ = self.project(self._inputs(x, paths))
        return self.out_proj(y), Signals(y, self.step(delta))

    def over_scans(self, scan: OfScan, x: jax.Array, paths: Paths, alignment: str) -> jax.Array:
        """The sum of what `scan` makes of the four paths. See `BidirectionalMixer.over_scans`."""
        u = self._inputs(x, paths)
        parameters = self.project(u)

        def along(order, direction, steps):
            delta, B, C = (
                (gather_tokens(p, order) for p in parameters) if self.paired else parameters
            )
            B = B + self.direction_B[...][direction].astype(B.dtype)
            gaps = self.gaps(steps, alignment, self.conv.bias[...])  # pyright: ignore[reportOptionalSubscript]
            return scan(self.inputs(u, delta, B, C, gaps, order=order))

        # Under vmap, what the paths share, such as exp(delta A) of a dense model, is computed once.
        return jax.vmap(along)(paths.order, paths.direction, paths.steps).sum(axis=0)

    def _project_unscanned(self, x: jax.Array) -> jax.Array:
        """The half of `in_proj` that is no gate, [B,P,D] to [B,P,E]."""
        kernel, bias = self.in_proj.kernel[...], self.in_proj.bias[...]  # pyright: ignore[reportOptionalSubscript]
        kernel, bias = (w[..., : w.shape[-1] // 2].astype(x.dtype) for w in (kernel, bias))
        return x @ kernel + bias

    def _inputs(self, x: jax.Array, paths: Paths) -> jax.Array:
        """[B,K,E] what all paths scan."""
        return jax.nn.silu(self.conv(x, paths.cells))
