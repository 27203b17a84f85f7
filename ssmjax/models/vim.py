"""Vim: bidirectional Mamba blocks over patches, a class token in the middle."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.mixer import BidirectionalMixer, Neighbours
from ssmjax.layers.norm import RMSNorm
from ssmjax.models.backbone import Backbone, head
from ssmjax.models.config import SSMConfig
from ssmjax.models.trunk import Trunk
from ssmjax.precision import wide_dtype
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.select import gather_tokens
from ssmjax.pruning.stream import Stream

EPSILON = 1e-5
CONV_TAPS = 4


@dataclasses.dataclass(frozen=True)
class VimConfig(SSMConfig):
    """Everything that defines a Vim."""

    @staticmethod
    def class_index_among(patches: int) -> int:
        """Half of the patches come before the class token."""
        return patches // 2


PRESETS: Mapping[str, VimConfig] = {
    "vim_tiny_patch16_224": VimConfig(embed_dim=192),
    "vim_small_patch16_224": VimConfig(embed_dim=384),
    "vim_base_patch16_224": VimConfig(embed_dim=768),
    "vim_tiny_patch16_stride8_224": VimConfig(embed_dim=192, stride=8),
    "vim_small_patch16_stride8_224": VimConfig(embed_dim=384, stride=8),
}

# The schedules of the paper's table 1, with the keep ratio that reproduces its FLOPs.
PAPER: Mapping[str, PruneConfig] = {
    "vim_tiny_patch16_224": PruneConfig(after_blocks=(10, 20), keep_ratio=0.8),
    "vim_small_patch16_224": PruneConfig(after_blocks=(5, 10, 15), keep_ratio=0.8),
}


class Block(nnx.Module):
    """Add, normalise, mix. The residual stream is float32; the mixer's output is added later."""

    def __init__(self, config: VimConfig, *, rngs: nnx.Rngs):
        self.norm = RMSNorm(config.embed_dim, epsilon=EPSILON, dtype=jnp.dtype(config.dtype))
        self.mixer = BidirectionalMixer(config.mixer, CONV_TAPS, rngs=rngs)

    def __call__(self, stream, layout, drop, *, alignment, implementation):
        """See `ssmjax.models.block.Block`."""
        residual = stream.tokens
        x = self.norm(residual)
        hidden, signals = self.mixer(x, layout, alignment=alignment, implementation=implementation)
        return Stream(residual, drop(hidden)), signals, Stream(residual, hidden)


class VimTrunk(Trunk):
    """Vim from images to tokens and through its blocks."""

    block = Block

    config: VimConfig

    def __init__(self, config: VimConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.norm = RMSNorm(config.embed_dim, epsilon=EPSILON, dtype=jnp.dtype(config.dtype))


def lay_out(positions: jax.Array | None, conv: str) -> Neighbours:
    """How tokens at `positions` [batch,K] lie under `PruneConfig.conv`; None: all are there."""
    return Neighbours(positions, positions if conv == "aligned" else None)


class Vim(VimTrunk, Backbone):
    """Vision Mamba (arXiv 2401.09417) with token pruning (arXiv 2409.18962)."""

    def __init__(self, config: VimConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.head = head(config, rngs=rngs)

    def embed(self, images: jax.Array, *, train: bool = False) -> Stream:
        """Patches with the class token in the middle, plus position embeddings; no residual yet."""
        patches = self.patch_embed(images)
        middle = self.config.class_index
        token = jnp.broadcast_to(self.cls_token[...], (patches.shape[0], 1, patches.shape[2]))
        parts = patches[:, :middle], token.astype(patches.dtype), patches[:, middle:]
        hidden = jnp.concatenate(parts, axis=1) + self.pos_embed[...].astype(patches.dtype)
        return Stream(jnp.zeros(hidden.shape, wide_dtype(hidden.dtype)), hidden)

    def layout(self, batch: int, positions: jax.Array | None) -> Neighbours:
        return lay_out(positions, self.config.prune.conv if self.config.prune else "compact")

    def finish(self, stream, positions, sizes):
        """The class token, wherever pruning has left it, and the sum it is part of."""
        residual, index = stream.tokens, self.config.class_index
        if positions is None:
            token = residual[:, index]
        else:
            place = jnp.argmax(positions == index, axis=1, keepdims=True)
            token = gather_tokens(residual, place)[:, 0]
        return self.norm(token), residual
