"""PlainMamba with a convolutional side branch: maps at strides 4 to 32 for detectors."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.dense.backbones.deformable import DeformableAttention, Grids, centres
from ssmjax.dense.backbones.ranges import Features, PlainMambaRanges, RangesConfig
from ssmjax.dense.backbones.spatial_prior import SpatialPrior
from ssmjax.dense.geometry.resize import resize
from ssmjax.layers.conv import Cells, GridConv
from ssmjax.layers.conv_bias import doubling, fan_out_normal
from ssmjax.layers.drop_path import drop_path
from ssmjax.layers.initial import linear
from ssmjax.layers.norm import BatchNorm, layer_norm
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.run import Run
from ssmjax.pruning.config import check_whole
from ssmjax.pruning.stream import Stream

EXTRA_EXTRACTORS = 2
LARGEST_STRIDE = 32


@dataclasses.dataclass(frozen=True)
class AdapterConfig(RangesConfig[PlainMambaConfig]):
    """A PlainMamba that interacts with a side branch before and after each range of blocks.

    Attributes:
      heads: of the deformable attention; embed_dim must be a multiple of their number.
      prior_width: P, channels of the spatial prior's first convolutions.
      points: places that each head of the attention samples, on each level.
      ffn_ratio: width of the extractors' feed-forward network, in parts of embed_dim.
    """

    heads: int = 6
    prior_width: int = 64
    points: int = 4
    ffn_ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "heads", "prior_width", "points")
        D = self.trunk.embed_dim
        if D % self.heads:
            raise ValueError(f"heads is {self.heads}; it must divide embed_dim, which is {D}.")
        if self.ffn_width < 1:
            raise ValueError(
                f"ffn_ratio is {self.ffn_ratio!r}; of embed_dim {D} it must leave at least 1."
            )

    @property
    def ffn_width(self) -> int:
        """Channels inside the extractors' feed-forward network."""
        return int(self.trunk.embed_dim * self.ffn_ratio)


class Injector(nnx.Module):
    """Brings the side branch into the tokens; at first it brings nothing."""

    def __init__(self, config: AdapterConfig, *, rngs: nnx.Rngs):
        D = config.trunk.embed_dim
        self.query_norm, self.value_norm = (layer_norm(D, rngs=rngs) for _ in range(2))
        self.attention = _attention(config, levels=3, rngs=rngs)
        self.gamma = nnx.Param(jnp.zeros(D))

    def __call__(self, x: jax.Array, c: jax.Array, grids: Grids) -> jax.Array:
        """Tokens [B,N,D] of the middle of three grids, and the side branch [B,S,D] of all."""
        references = centres(grids[1:2])
        brought = self.attention(self.query_norm(x), references, self.value_norm(c), grids)
        return x + self.gamma[...] * brought.astype(x.dtype)


class ConvFFN(nnx.Module):
    """Linear, depthwise 3x3 convolution of each level as a map, GELU, linear."""

    def __init__(self, config: AdapterConfig, *, rngs: nnx.Rngs):
        D, width = config.trunk.embed_dim, config.ffn_width
        dtype = jnp.dtype(config.trunk.dtype)
        self.rise = linear(D, width, dtype=dtype, rngs=rngs)
        self.conv = GridConv(width, 3, use_bias=True, kernel_init=fan_out_normal(3, 1), rngs=rngs)
        self.fall = linear(width, D, dtype=dtype, rngs=rngs)

    def __call__(self, c: jax.Array, grids: Grids) -> jax.Array:
        """[B,S,D] to [B,S,D] of the compute dtype, S counting the cells of all grids."""
        levels = [self.conv(x, Cells(grid)) for x, grid in _levels(self.rise(c), grids)]
        return self.fall(jax.nn.gelu(jnp.concatenate(levels, axis=1), approximate=False))


class Extractor(nnx.Module):
    """Brings the tokens into the side branch."""

    def __init__(self, config: AdapterConfig, *, rngs: nnx.Rngs):
        D = config.trunk.embed_dim
        self.query_norm, self.value_norm, self.ffn_norm = (
            layer_norm(D, rngs=rngs) for _ in range(3)
        )
        self.attention = _attention(config, levels=1, rngs=rngs)
        self.ffn = ConvFFN(config, rngs=rngs)

    def __call__(
        self,
        c: jax.Array,
        x: jax.Array,
        grids: Grids,
        drop: Callable[[jax.Array], jax.Array],
    ) -> jax.Array:
        """The side branch [B,S,D] of three grids, and the tokens [B,N,D] of the middle one."""
        values = self.value_norm(x)
        found = self.attention(self.query_norm(c), centres(grids), values, grids[1:2])
        c = c + found.astype(c.dtype)
        return c + drop(self.ffn(self.ffn_norm(c), grids).astype(c.dtype))


class Interaction(nnx.Module):
    """What joins trunk and side branch around a range of blocks: an injector, then extractors."""

    def __init__(self, config: AdapterConfig, extractors: int, *, rngs: nnx.Rngs):
        self.injector = Injector(config, rngs=rngs)
        self.extractors = nnx.List([Extractor(config, rngs=rngs) for _ in range(extractors)])


class PlainMambaAdapter(nnx.Module):
    """PlainMamba in a ViT-Adapter (arXiv 2205.08534): four maps at strides 4, 8, 16 and 32."""

    def __init__(self, config: AdapterConfig, *, rngs: nnx.Rngs):
        self.config = config
        D, dtype = config.trunk.embed_dim, jnp.dtype(config.trunk.dtype)
        self.trunk = PlainMambaRanges(config, rngs=rngs)
        self.prior = SpatialPrior(
            config.trunk.in_channels, config.prior_width, D, dtype=dtype, rngs=rngs
        )
        self.level_embed = nnx.Param(jax.random.normal(rngs.params(), (3, D)))
        extractors = [1] * (len(config.ends) - 1) + [1 + EXTRA_EXTRACTORS]
        self.interactions = nnx.List(
            [Interaction(config, number, rngs=rngs) for number in extractors]
        )
        self.up = doubling(D, dtype=dtype, kernel_init=fan_out_normal(2, D), rngs=rngs)
        self.norms = nnx.List([BatchNorm(D) for _ in range(4)])

    def __call__(self, images: jax.Array, run: Run) -> Features:
        """Maps of images; to be called under `jit`.

        Args:
          images: [B,height,width,channels], normalised as the weights expect, both sides multiples
            of 32.
          run: how.

        Returns:
          Four maps [B,height/s,width/s,D] in float32 (or wider), s being 4, 8, 16 and 32; the cells
          kept; and as intermediates "prior": the spatial prior's four maps, "tokens": [B,N,D]
          before the first block, and of each range of blocks "x": the tokens [B,N,D] and "c": the
          side branch [B,21N/4,D] after it.

        Raises:
          ValueError: images of another shape, or a key is needed and missing.
        """
        sides = images.shape[1:3]
        if any(side % LARGEST_STRIDE for side in sides):
            raise ValueError(
                f"images has shape {images.shape}; pad height and width to multiples of "
                f"{LARGEST_STRIDE}."
            )
        tokens = self.trunk.begin(images, run)
        prior = self.prior(images.astype(self.config.trunk.dtype), train=run.train)
        grids = tuple((x.shape[1], x.shape[2]) for x in prior[1:])
        c = self._side_branch(prior[1:], tokens.values.dtype)
        before, xs, cs, kept = tokens.values, [], [], []
        drops = self._drops(run.split(3)[2] if self.trunk.drops(run) else None)
        for number, interaction in enumerate(self.interactions):
            values = interaction.injector(tokens.values, c, grids)
            tokens = self.trunk.run_range(number, tokens._replace(stream=Stream(values)), run)
            for extractor in interaction.extractors:
                c = extractor(c, tokens.values, grids, next(drops))
            xs.append(tokens.values)
            kept.append(tokens.kept)
            cs.append(c)
        maps = self._outputs(prior[0], c, tokens.map, grids, run.train)
        between = {"prior": prior, "tokens": before, "x": tuple(xs), "c": tuple(cs)}
        return Features(maps, tuple(kept), between)

    def _drops(self, key: jax.Array | None) -> Iterator[Callable[[jax.Array], jax.Array]]:
        """Drop path for each extractor, all at the full rate; without a key it does not act."""
        keep = jnp.float32(1 - self.config.trunk.drop_path_rate)
        for number in itertools.count():
            if key is None:
                yield lambda x: x
            else:
                yield partial(drop_path, keep=keep, key=jax.random.fold_in(key, number))

    def _side_branch(self, maps, dtype) -> jax.Array:
        """[B,S,D] of three maps, each with its level's embedding."""
        levels = [
            x.reshape(x.shape[0], -1, x.shape[-1]).astype(dtype) + embedding
            for x, embedding in zip(maps, self.level_embed[...], strict=True)
        ]
        return jnp.concatenate(levels, axis=1)

    def _outputs(self, finest, c, x, grids, train) -> tuple[jax.Array, ...]:
        """The four maps: both branches added, normalised."""
        side = [level.reshape(level.shape[0], *grid, -1) for level, grid in _levels(c, grids)]
        maps = [(self.up(side[0]) + finest).astype(c.dtype), *side]
        return tuple(
            norm(a + resize(x, (a.shape[1], a.shape[2])), train=train)
            for norm, a in zip(self.norms, maps, strict=True)
        )


def _attention(config: AdapterConfig, *, levels: int, rngs: nnx.Rngs) -> DeformableAttention:
    return DeformableAttention(
        config.trunk.embed_dim,
        config.heads,
        levels,
        config.points,
        dtype=jnp.dtype(config.trunk.dtype),
        rngs=rngs,
    )


def _levels(c: jax.Array, grids: Grids):
    """([B,h*w,D], (h, w)) of each level in [B,S,D]."""
    ends = np.cumsum([h * w for h, w in grids])
    return zip(jnp.split(c, ends[:-1], axis=1), grids, strict=True)
