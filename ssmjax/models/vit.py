"""ViT and DeiT: self-attention blocks over patches, the class token first."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.attention import SelfAttention
from ssmjax.layers.initial import linear
from ssmjax.layers.norm import layer_norm
from ssmjax.models.backbone import Backbone, head
from ssmjax.models.config import BackboneConfig
from ssmjax.precision import widened
from ssmjax.pruning.config import PruneConfig, check_whole
from ssmjax.pruning.strategies.strategy import Signals
from ssmjax.pruning.stream import Stream


@dataclasses.dataclass(frozen=True)
class ViTConfig(BackboneConfig):
    """Everything that defines a ViT.

    Attributes:
      num_heads: attention heads; they share D evenly.
      mlp_ratio: width of the hidden layer of a block's MLP / D.
    """

    depth: int = 12
    num_heads: int = 3
    mlp_ratio: int = 4

    signals = ("attention",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "num_heads", "mlp_ratio")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}; it must divide embed_dim, {self.embed_dim}."
            )
        for field in ("alignment", "conv"):
            default = getattr(PruneConfig, field)
            if self.prune is not None and getattr(self.prune, field) != default:
                raise ValueError(
                    f"{field} is {getattr(self.prune, field)!r}; a ViT has no hidden state and no "
                    f"convolution between tokens, so leave it at {default!r}."
                )

    @staticmethod
    def class_index_among(patches: int) -> int:
        """The class token comes first."""
        return 0


PRESETS: Mapping[str, ViTConfig] = {
    "deit_tiny_patch16_224": ViTConfig(embed_dim=192, num_heads=3),
    "deit_small_patch16_224": ViTConfig(embed_dim=384, num_heads=6),
    "deit_base_patch16_224": ViTConfig(embed_dim=768, num_heads=12),
    "vit_base_patch16_384": ViTConfig(embed_dim=768, num_heads=12, img_size=384),
    "vit_large_patch16_384": ViTConfig(embed_dim=1024, depth=24, num_heads=16, img_size=384),
}

# EViT's schedule and keep ratio (arXiv 2202.07800), without the fused token.
PAPER: Mapping[str, PruneConfig] = {
    name: PruneConfig(after_blocks=(4, 7, 10), keep_ratio=0.7, importance="attention")
    for name in PRESETS
    if name.startswith("deit_")
}


class MLP(nnx.Module):
    """Linear, GELU, linear, on each token."""

    def __init__(self, features: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        self.fc1 = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = linear(hidden, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Block(nnx.Module):
    """Normalise, attend, add; normalise, MLP, add. The stream is one array, float32."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(config.dtype)
        features, options = config.embed_dim, {"dtype": self.dtype, "rngs": rngs}
        self.norm1 = layer_norm(features, rngs=rngs)
        self.attn = SelfAttention(features, config.num_heads, **options)
        self.norm2 = layer_norm(features, rngs=rngs)
        self.mlp = MLP(features, config.mlp_ratio * features, **options)

    def __call__(self, stream, layout, drop, *, alignment, implementation):
        """See `ssmjax.models.block.HalvedBlock`; there is nothing to lay out or align."""
        stream, signals, traced = self.first_half(stream, layout, drop)
        return self.second_half(stream, drop), signals, traced

    def first_half(self, stream, layout, drop, **_):
        """Attention, after which EViT prunes."""
        x = stream.residual
        mixed, weights = self.attn(self.norm1(x).astype(self.dtype))
        signals = Signals(attention=weights[:, :, 0].mean(axis=1))
        return Stream(x + drop(mixed).astype(x.dtype)), signals, Stream(x, mixed)

    def second_half(self, stream, drop):
        """The MLP."""
        x = stream.residual
        hidden = self.mlp(self.norm2(x).astype(self.dtype))
        return Stream(x + drop(hidden, branch=1).astype(x.dtype))


class ViT(Backbone):
    """Vision Transformer (arXiv 2010.11929) as DeiT has it (arXiv 2012.12877), pruned as EViT."""

    block = Block
    prunes_inside = True

    config: ViTConfig

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.norm = layer_norm(config.embed_dim, rngs=rngs)
        self.head = head(config, rngs=rngs)

    def embed(self, images: jax.Array, *, train: bool = False) -> Stream:
        """The class token, then patches, plus position embeddings."""
        patches = self.patch_embed(images)
        wide = widened(patches)
        token = jnp.broadcast_to(self.cls_token[...], (wide.shape[0], 1, wide.shape[2]))
        return Stream(jnp.concatenate([token, wide], axis=1) + self.pos_embed[...])

    def layout(self, batch: int, positions: jax.Array | None) -> None:
        """Attention does not ask where a token stands."""

    def finish(self, stream, positions, sizes):
        """The class token, which pruning leaves first."""
        x = stream.residual
        return self.norm(x[:, 0]), x
