"""Maps of Vim for semantic segmentation: after ranges of blocks, brought to four strides."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.dense.backbones.ranges import CellTokens, Features, Ranges, RangesConfig
from ssmjax.layers.conv_bias import doubling
from ssmjax.layers.mixer import Neighbours
from ssmjax.layers.norm import BatchNorm
from ssmjax.layers.pos_embed import resize_inside
from ssmjax.models.run import Run
from ssmjax.models.vim import Block, VimConfig, VimTrunk, lay_out
from ssmjax.precision import wide_dtype
from ssmjax.pruning.stream import Stream

SHOWN = ("mixer", "sum")
STRIDES = (4, 8, 16, 32)  # Of the maps, where patches have 16 pixels.


@dataclasses.dataclass(frozen=True)
class PatchVimConfig(VimConfig):
    """Everything that defines a Vim without a class token."""

    @staticmethod
    def class_index_among(patches: int) -> None:
        """None: there is no class token."""


@dataclasses.dataclass(frozen=True)
class VimFeaturesConfig(RangesConfig[PatchVimConfig]):
    """A Vim whose blocks run in four ranges, each of which gives a map.

    Attributes:
      shown: what a map shows of the last block of its range: what its `mixer` gave, or the `sum`
        of that and all before it.
    """

    shown: str = "mixer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.ends) != len(STRIDES):
            raise ValueError(f"ends is {self.ends}; give {len(STRIDES)} blocks, one for each map.")
        if self.shown not in SHOWN:
            raise ValueError(f"shown is {self.shown!r}; choose one of {', '.join(SHOWN)}.")
        if self.prune is not None and self.prune.conv == "frozen":
            raise ValueError(
                "conv is 'frozen'; Vim's convolutions run along the sequence of the tokens left, "
                "so choose compact or aligned."
            )


class FeatureBlock(Block):
    """A block that also hands on what its mixer gave, which drop path has left alone."""

    def __call__(self, stream, layout, drop, *, alignment, implementation):
        """See `ssmjax.models.block.Block`."""
        stream, signals, traced = super().__call__(
            stream, layout, drop, alignment=alignment, implementation=implementation
        )
        return stream._replace(undropped=traced.hidden), signals, traced


class VimRanges(VimTrunk, Ranges):
    """Vim over a grid.

    Its final norm does nothing: the official code keeps it all the same.
    """

    block = FeatureBlock

    def __init__(self, config: VimFeaturesConfig, *, rngs: nnx.Rngs):
        super().__init__(config.pruned_trunk(), rngs=rngs)
        self.ends = config.ends

    def embed(self, images: jax.Array, *, train: bool) -> Stream:
        """Patches plus position embeddings, resized where the images have another grid."""
        patches, grid = self.patch_embed(images), self.config.grid_of(*images.shape[1:3])
        positions = resize_inside(self.pos_embed[...], self.config.grid, grid)
        hidden = patches + positions.astype(patches.dtype)
        return Stream(jnp.zeros(hidden.shape, wide_dtype(hidden.dtype)), hidden, hidden)

    def layout(self, tokens: CellTokens) -> Neighbours:
        prune = self.config.prune
        return lay_out(tokens.kept, prune.conv if prune else "compact")


class Pyramid(nnx.Module):
    """Four maps of one stride to four strides, as BEiT has them (arXiv 2106.08254)."""

    def __init__(self, features: int, *, dtype, rngs: nnx.Rngs):
        def up() -> nnx.ConvTranspose:
            # That of PyTorch: uniform up to 1 / sqrt(fan_in).
            uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
            return doubling(features, dtype=dtype, rngs=rngs, kernel_init=uniform)

        self.twice = nnx.List([up(), up()])
        self.norm = BatchNorm(features)
        self.once = up()

    def __call__(self, maps: list[jax.Array], *, train: bool = False) -> tuple[jax.Array, ...]:
        """Four maps [B,H,W,D] of the compute dtype to [B,sH,sW,D], s being 4, 2, 1 and 1/2."""
        a, b, c, d = maps
        a = jax.nn.gelu(self.norm(self.twice[0](a), train=train), approximate=False)
        return self.twice[1](a), self.once(b), c, nnx.max_pool(d, (2, 2), strides=(2, 2))


class VimFeatures(nnx.Module):
    """A Vim (arXiv 2401.09417) that gives a map of each of its four ranges of blocks."""

    def __init__(self, config: VimFeaturesConfig, *, rngs: nnx.Rngs):
        self.config = config
        dtype = jnp.dtype(config.trunk.dtype)
        self.trunk = VimRanges(config, rngs=rngs)
        self.pyramid = Pyramid(config.trunk.embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array, run: Run) -> Features:
        """Maps of images; to be called under `jit`.

        Args:
          images: [B,height,width,channels], normalised as the weights expect, of any size.
          run: how.

        Returns:
          Four maps [B,4H,4W,D], [B,2H,2W,D], [B,H,W,D] and [B,H//2,W//2,D] of the compute dtype,
          (H, W) being `config.trunk.grid_of(height, width)`; and the cells kept.

        Raises:
          ValueError: images of another shape or of less than 2 x 2 patches, or a key is needed and
            missing.
        """
        tokens = self.trunk.begin(images, run)
        if min(tokens.grid) < 2:
            raise ValueError(
                f"images has shape {images.shape}; both sides must have at least 2 patches of "
                f"{self.config.trunk.patch_size} pixels."
            )
        maps, kept = [], []
        for number in range(len(self.config.ends)):
            tokens = self.trunk.run_range(number, tokens, run)
            stream: Any = tokens.stream
            if number == len(self.config.ends) - 1:
                # As officially, drop path acts on all that goes on to another block.
                stream = stream._replace(hidden=stream.undropped)
            shown = stream.undropped if self.config.shown == "mixer" else stream.tokens
            shown = shown.astype(self.config.trunk.dtype)
            maps.append(shown.reshape(len(shown), *tokens.grid, -1))
            kept.append(tokens.kept)
        return Features(self.pyramid(maps, train=run.train), tuple(kept))
