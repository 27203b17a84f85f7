"""Vim: bidirectional Mamba blocks over patches, a class token in the middle, pruned on request."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.layers.drop_path import drop_path
from ssmjax.layers.mixer import BidirectionalMixer
from ssmjax.layers.norm import RMSNorm
from ssmjax.layers.patch_embed import PatchEmbed
from ssmjax.models.config import BackboneConfig
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.importance import token_scores
from ssmjax.pruning.select import gather_tokens, select_tokens

EPSILON = 1e-5
CONV_TAPS = 4


@dataclasses.dataclass(frozen=True)
class VimConfig(BackboneConfig):
    """Everything that defines a Vim."""

    @property
    def length(self) -> int:
        """L, patches and class token."""
        return self.grid[0] * self.grid[1] + 1

    @property
    def class_index(self) -> int:
        """Original position of the class token: half of the patches come before it."""
        return (self.length - 1) // 2


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
        dtype = jnp.dtype(config.dtype)
        self.norm = RMSNorm(config.embed_dim, epsilon=EPSILON)
        self.mixer = BidirectionalMixer(
            config.embed_dim,
            config.expand,
            config.d_state,
            config.rank,
            CONV_TAPS,
            config.depth,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, hidden, residual, positions, **options):
        """hidden, residual [B,K,D] to the same, and [B,K,E] the token scores' input."""
        residual = residual + hidden.astype(residual.dtype)
        x = self.norm(residual, hidden.dtype)
        hidden, y = self.mixer(x, positions, **options)
        return hidden, residual, y


class Vim(nnx.Module):
    """Vision Mamba (arXiv 2401.09417) with token pruning (arXiv 2409.18962).

    The parameters of all blocks are stacked along a leading axis, so that the blocks between two
    pruning stages are one `lax.scan` and compile once.
    """

    def __init__(self, config: VimConfig, *, rngs: nnx.Rngs):
        self.config = config
        dtype = jnp.dtype(config.dtype)
        embedding = nnx.initializers.truncated_normal(0.02)
        self.patch_embed = PatchEmbed(
            config.in_channels,
            config.embed_dim,
            config.patch_size,
            config.step,
            dtype=dtype,
            rngs=rngs,
        )
        self.cls_token = nnx.Param(embedding(rngs.params(), (1, 1, config.embed_dim)))
        self.pos_embed = nnx.Param(embedding(rngs.params(), (1, config.length, config.embed_dim)))
        stack = nnx.vmap(partial(_make_block, config))
        self.blocks = stack(rngs.split(config.depth))
        self.norm = RMSNorm(config.embed_dim, epsilon=EPSILON)
        self.head = nnx.Linear(
            config.embed_dim, config.num_classes, dtype=dtype, kernel_init=embedding, rngs=rngs
        )

    def __call__(
        self,
        images: jax.typing.ArrayLike,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        return_positions: bool = False,
        return_intermediates: bool = False,
        implementation: str | None = None,
    ) -> Any:
        """Classify images; compiled at the first call with each shape.

        Args:
          images: [B,height,width,channels], normalised as the weights expect.
          key: random key for drop path (with `train`) and `importance="random"`.
          train: whether drop path acts.
          return_positions: also return, per pruning stage, the [B,K] int32 original positions kept.
          return_intermediates: also return {"hidden": per block [B,K,D], its mixer's output,
            "residual": per block [B,K,D], the sum it normalised, "features": [B,D], the head's
            input}.
          implementation: of the scan; see `kernels.selective_scan`.

        Returns:
          [B,num_classes] logits in float32 (or wider), followed by what was asked for.

        Raises:
          ValueError: images of another shape than the model's, or a key is needed and missing.
        """
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.config.image_shape:
            height, width, channels = self.config.image_shape
            raise ValueError(
                f"images has shape {images.shape}; this model takes [batch, {height}, {width}, "
                f"{channels}]. Resize them, or create the model with img_size."
            )
        if train and self.config.drop_path_rate > 0 and key is None:
            raise ValueError("drop path needs a key: model(images, train=True, key=...).")
        graphdef, state = nnx.split(self)
        logits, stages, intermediates = _forward(
            graphdef, state, images, key, train, return_intermediates, implementation
        )
        results = (logits,) + (stages,) * return_positions + (intermediates,) * return_intermediates
        return results if len(results) > 1 else logits

    def with_prune(self, prune: PruneConfig | None) -> "Vim":
        """The same parameters, pruned otherwise. Raises ValueError as `VimConfig` does."""
        model = nnx.merge(*nnx.split(self))
        model.config = dataclasses.replace(self.config, prune=prune)
        return model

    def _embed(self, images: jax.Array) -> jax.Array:
        """Patches with the class token at index M // 2, plus position embeddings; [B,L,D]."""
        patches = self.patch_embed(images.astype(self.config.dtype))
        middle = self.config.class_index
        token = jnp.broadcast_to(self.cls_token[...], (patches.shape[0], 1, patches.shape[2]))
        parts = patches[:, :middle], token.astype(patches.dtype), patches[:, middle:]
        return jnp.concatenate(parts, axis=1) + self.pos_embed[...].astype(patches.dtype)

    def _run_blocks(self, hidden, residual, positions, first, last, key, trace, implementation):
        """Blocks first to last (0-based, last excluded) as one scan over their parameters.

        Returns hidden, residual, the last block's [B,K,E] input of the token scores, and with
        `trace` each block's (hidden, residual), stacked.
        """
        config, prune = self.config, self.config.prune
        options = {
            "alignment": prune.alignment if prune else "none",
            "conv": prune.conv if prune else "compact",
            "implementation": implementation,
        }
        graphdef, stacked = nnx.split(self.blocks)
        params = jax.tree.map(lambda p: p[first:last], stacked)
        keep = 1 - np.linspace(0, config.drop_path_rate, config.depth, dtype=np.float32)[first:last]
        keys = None if key is None else jax.random.split(key, config.depth)[first:last]

        def run(carry, inputs):
            params, keep, key = inputs
            hidden, residual, _ = carry
            hidden, residual, y = nnx.merge(graphdef, params)(
                hidden, residual, positions, **options
            )
            output = (hidden, residual) if trace else ()
            if key is not None:
                hidden = drop_path(hidden, keep, key)
            return (hidden, residual, y), output

        scored = jnp.zeros((*hidden.shape[:2], config.channels), hidden.dtype)
        carry, outputs = lax.scan(run, (hidden, residual, scored), (params, keep, keys))
        return *carry, outputs

    def _prune(self, hidden, residual, y, positions, count, key):
        """Keep `count` image tokens and the class token of every image."""
        config = self.config
        scores = token_scores(config.prune, y, positions, config.length, key)  # pyright: ignore[reportArgumentType]
        kept = select_tokens(scores, count + 1, protected=positions == config.class_index)
        return tuple(gather_tokens(a, kept) for a in (hidden, residual, positions))

    def _class_token(self, tokens, positions):
        """[B,K,D] to [B,D]: the class token, wherever pruning has left it."""
        index = self.config.class_index
        if positions is None:
            return tokens[:, index]
        index = jnp.argmax(positions == index, axis=1)
        return jnp.take_along_axis(tokens, index[:, None, None], axis=1)[:, 0]


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _forward(graphdef, state, images, key, train, trace, implementation):
    """Logits, positions per stage, and intermediates (None without `trace`)."""
    model: Vim = nnx.merge(graphdef, state)
    config, prune = model.config, model.config.prune
    path_key, prune_key = (None, None) if key is None else jax.random.split(key)
    if not train or config.drop_path_rate == 0:
        path_key = None
    hidden = model._embed(images)
    residual = jnp.zeros(hidden.shape, jnp.promote_types(hidden.dtype, jnp.float32))
    everything = jnp.broadcast_to(jnp.arange(config.length, dtype=jnp.int32), hidden.shape[:2])
    positions, stages, trace_outputs, first = None, [], [], 0
    counts = config.image_tokens
    for stage, block in enumerate(prune.after_blocks if prune else ()):
        if counts[stage + 1] < counts[stage]:
            hidden, residual, y, outputs = model._run_blocks(
                hidden, residual, positions, first, block, path_key, trace, implementation
            )
            trace_outputs.append(outputs)
            present = everything if positions is None else positions
            stage_key = None if prune_key is None else jax.random.fold_in(prune_key, stage)
            hidden, residual, positions = model._prune(
                hidden, residual, y, present, counts[stage + 1], stage_key
            )
            first = block
        stages.append(everything if positions is None else positions)
    hidden, residual, _, outputs = model._run_blocks(
        hidden, residual, positions, first, config.depth, path_key, trace, implementation
    )
    residual = residual + hidden.astype(residual.dtype)
    features = model.norm(model._class_token(residual, positions), hidden.dtype)
    logits = model.head(features).astype(residual.dtype)
    if not trace:
        return logits, stages, None
    per_block = [tuple(a for part in (*trace_outputs, outputs) for a in part[i]) for i in (0, 1)]
    return logits, stages, {"hidden": per_block[0], "residual": per_block[1], "features": features}


def _make_block(config: VimConfig, rngs: nnx.Rngs) -> Block:
    return Block(config, rngs=rngs)
