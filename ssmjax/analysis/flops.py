"""Analytic FLOPs of a model, per part; one multiply-add counts as one, as papers print them.

XLA's own cost analysis counts the body of a scan once, so it cannot count these models. Norms,
activations, position embeddings and the gaps of pruned positions are left out, as is customary.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from ssmjax.layers.patch_embed import STEM_FEATURES, STEM_SIZES
from ssmjax.models.config import BackboneConfig, overridden, trunk_config
from ssmjax.models.plain_mamba import DWCONV_SIZE, PlainMambaConfig
from ssmjax.models.vim import CONV_TAPS, VimConfig
from ssmjax.models.vit import ViTConfig

# The field's convention for a selective scan, per token, channel and state.
SCAN_FLOPS = 9


@dataclasses.dataclass(frozen=True)
class Flops:
    """Multiply-adds of one image, summed over the blocks.

    Attributes:
      parts: of each part, as the model computes it: every scan direction counted.
      published_parts: the same by the papers' count, where Vim has one direction, not two;
        PlainMamba's four paths are counted either way.
    """

    parts: Mapping[str, int]
    published_parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """What the model computes: the sum of `parts`."""
        return sum(self.parts.values())

    @property
    def published(self) -> int:
        """What a paper would print: the sum of `published_parts`."""
        return sum(self.published_parts.values())

    def __str__(self) -> str:
        rows = [("part", "as computed", "as published")]
        for part, count in (*self.parts.items(), ("total", self.total)):
            published = self.published if part == "total" else self.published_parts[part]
            rows.append((part, format_flops(count), format_flops(published)))
        return "\n".join(f"{part:<16}{both:>16}{one:>14}" for part, both, one in rows)


def flops(model: Any, image_shape: tuple[int, int, int] | None = None) -> Any:
    """Count the multiply-adds that one image costs.

    Args:
      model: from `ssmjax.create_model`; where it prunes, later blocks see fewer tokens.
      image_shape: (height, width, channels) of images, in pixels, to count the model as if it had
        been made for them; None is the size it was made for.

    Returns:
      `Flops` of a classifier, `ssmjax.dense.flops.DenseFlops` of a model of a dense task; both have
      a `total`.

    Raises:
      ValueError: images that the model could not take at any size.
    """
    config, in_channels = model.config, trunk_config(model.config).in_channels
    if image_shape is not None:
        if len(image_shape) != 3:
            raise ValueError(
                f"image_shape is {tuple(image_shape)}; give (height, width, channels)."
            )
        height, width, channels = image_shape
        if channels != in_channels:
            raise ValueError(
                f"image_shape is {tuple(image_shape)}; this model takes images of "
                f"{in_channels} channels, as ({height}, {width}, {in_channels})."
            )
        config = overridden(config, {"img_size": (height, width)})
    return count_config(config)


def count_parameters(model: nnx.Module) -> int:
    """How many numbers training changes."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def format_flops(count: float) -> str:
    """A number of multiply-adds for people: 1822877184 is "1.823 G", 9600000 is "9.600 M"."""
    return f"{count / 1e9:.3f} G" if count >= 1e9 else f"{count / 1e6:.3f} M"


def _tokens_by_block(config: BackboneConfig, *, at_end: bool = False) -> list[int]:
    """Tokens at the start or end of each block, the class token included: it is always there."""
    pruned_after = config.prune.after_blocks if config.prune else ()
    blocks = range(at_end, config.depth + at_end)
    stages = [sum(after <= block for after in pruned_after) for block in blocks]
    return [config.image_tokens[stage] + (config.class_index is not None) for stage in stages]


@functools.singledispatch
def count_config(config) -> Any:
    """The count of one kind of model, told by its config; each kind registers its own."""
    raise NotImplementedError(f"flops does not count models with a {type(config).__name__} yet.")


@count_config.register
def _count_vim(config: VimConfig) -> Flops:
    both, one = (_vim_parts(config, directions) for directions in (2, 1))
    return Flops(both, one)


def _vim_parts(config: VimConfig, directions: int) -> dict[str, int]:
    D, E, N, R = config.embed_dim, config.channels, config.d_state, config.rank
    tokens = sum(_tokens_by_block(config))
    patches = config.image_tokens[0]
    return {
        "patch embedding": patches * config.patch_size**2 * config.in_channels * D,
        "in_proj": tokens * D * 2 * E,
        "conv": tokens * directions * CONV_TAPS * E,
        "x_proj": tokens * directions * E * (R + 2 * N),
        "dt_proj": tokens * directions * R * E,
        "scan": tokens * directions * SCAN_FLOPS * E * N,
        "skip and gate": tokens * directions * 2 * E,
        "out_proj": tokens * E * D,
        "head": D * config.num_classes,
    }


@count_config.register
def _count_plain_mamba(config: PlainMambaConfig) -> Flops:
    D, E, N, R = config.embed_dim, config.channels, config.d_state, config.rank
    by_block = _tokens_by_block(config)
    tokens, paths, S = sum(by_block), 4, STEM_FEATURES
    height, width = (-(-side // 2) for side in config.image_shape[:2])
    first, second = STEM_SIZES
    stem = first**2 * config.in_channels * S + config.stem_convs * second**2 * S * S
    parts = {
        "stem": height * width * stem,
        "patch embedding": config.image_tokens[0] * (config.patch_size // 2) ** 2 * S * D,
        "in_proj": tokens * D * 2 * E,
        "conv": tokens * config.conv_size**2 * E,
        "x_proj": tokens * E * (R + 2 * N),
        "dt_proj": tokens * R * E,
        "scan": tokens * paths * SCAN_FLOPS * E * N,
        "skip": tokens * paths * E,
        "out_proj": tokens * E * D,
        "depthwise blocks": sum(by_block[i] * DWCONV_SIZE**2 * D for i in config.dwconv_blocks),
        "head": D * config.num_classes,
    }
    return Flops(parts, parts)


@count_config.register
def _count_vit(config: ViTConfig) -> Flops:
    """Each pair of tokens costs 2 D: queries with keys, and weights with values.

    A block prunes between its attention and its MLP.
    """
    D, by_block = config.embed_dim, _tokens_by_block(config)
    tokens, in_mlps = sum(by_block), sum(_tokens_by_block(config, at_end=True))
    parts = {
        "patch embedding": config.image_tokens[0] * config.patch_size**2 * config.in_channels * D,
        "qkv": tokens * D * 3 * D,
        "attention": sum(2 * T**2 * D for T in by_block),
        "proj": tokens * D * D,
        "mlp": in_mlps * 2 * D * config.mlp_ratio * D,
        "head": D * config.num_classes,
    }
    return Flops(parts, parts)
