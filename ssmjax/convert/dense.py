"""Official state_dicts of the dense tasks' backbones, entry by entry.

They are those of PlainMamba's folder `downstream` and of Vim's folder `seg`.
"""

from ssmjax.convert.keymap import (
    DEPTHWISE_2D,
    SAME,
    Entry,
    batch_norm,
    conv,
    conv_norm,
    linear,
    norm,
)
from ssmjax.convert.plain_mamba import trunk_table
from ssmjax.convert.vim import blocks_table, embedding_table
from ssmjax.dense.adapter import EXTRA_EXTRACTORS, AdapterConfig
from ssmjax.dense.ranges import RangesConfig
from ssmjax.dense.vim_features import VimFeaturesConfig
from ssmjax.models.plain_mamba import PlainMambaConfig


def features_table(config: RangesConfig[PlainMambaConfig], at: str = "") -> list[Entry]:
    """The entries of `ssmjax.dense.features.PlainMambaFeatures`, in official order.

    Args:
      config: of the features.
      at: where they stand in the model, as "backbone."; nothing where they are the model.
    """
    last = len(config.ends) - 1
    outputs = [f"norm_layer{end - 1}" for end in config.ends[:last]]
    entries = trunk_table(config.trunk, f"{at}trunk.")
    for theirs, number in (("ln1", last), *zip(outputs, range(last), strict=True)):
        entries += norm(f"backbone.{theirs}", f"{at}norms.{number}")
    return entries


def vim_features_table(config: VimFeaturesConfig, at: str = "") -> list[Entry]:
    """The entries of `ssmjax.dense.vim_features.VimFeatures`, as `features_table` has them."""
    places = "backbone.", f"{at}trunk."
    pyramid = f"{at}pyramid"
    return [
        *embedding_table(config.trunk, *places),
        *blocks_table(config.trunk, *places),
        *conv("backbone.fpn1.0", f"{pyramid}.twice.0"),
        *batch_norm("backbone.fpn1.1", f"{pyramid}.norm"),
        *conv("backbone.fpn1.3", f"{pyramid}.twice.1"),
        *conv("backbone.fpn2.0", f"{pyramid}.once"),
    ]


def adapter_table(config: AdapterConfig, at: str = "") -> list[Entry]:
    """The entries of the backbone of detectors, as `features_table` has them."""
    positions, *trunk = trunk_table(config.trunk, f"{at}trunk.")
    entries = [positions, Entry("backbone.level_embed", f"{at}level_embed", SAME), *trunk]
    stem = [(f"stem.{3 * i}", f"stem.{3 * i + 1}", f"stem.{i}") for i in range(3)]
    stages = [(f"conv{i + 2}.0", f"conv{i + 2}.1", f"stages.{i}") for i in range(3)]
    for kernel, after, ours in (*stem, *stages):
        spm = "backbone.spm"
        entries += conv_norm(f"{spm}.{kernel}", f"{spm}.{after}", f"{at}prior.{ours}")
    for i in range(4):
        entries += conv(f"backbone.spm.fc{i + 1}", f"{at}prior.projections.{i}")
    for i in range(len(config.ends)):
        theirs, ours = f"backbone.interactions.{i}", f"{at}interactions.{i}"
        entries += [
            Entry(f"{theirs}.injector.gamma", f"{ours}.injector.gamma", SAME),
            *_attention(f"{theirs}.injector", f"{ours}.injector"),
            *_extractor(f"{theirs}.extractor", f"{ours}.extractors.0"),
        ]
    for i in range(EXTRA_EXTRACTORS):
        entries += _extractor(f"{theirs}.extra_extractors.{i}", f"{ours}.extractors.{i + 1}")
    entries += conv("backbone.up", f"{at}up")
    for i in range(4):
        entries += batch_norm(f"backbone.ad_norm{i + 1}", f"{at}norms.{i}")
    return entries


def _extractor(theirs: str, ours: str) -> list[Entry]:
    return [
        *_attention(theirs, ours),
        *linear(f"{theirs}.ffn.fc1", f"{ours}.ffn.rise"),
        *linear(f"{theirs}.ffn.dwconv.dwconv", f"{ours}.ffn.conv", DEPTHWISE_2D),
        *linear(f"{theirs}.ffn.fc2", f"{ours}.ffn.fall"),
        *norm(f"{theirs}.ffn_norm", f"{ours}.ffn_norm"),
    ]


def _attention(theirs: str, ours: str) -> list[Entry]:
    """Deformable attention and the norms before it."""
    names = {
        "sampling_offsets": "offsets",
        "attention_weights": "weights",
        "value_proj": "value",
        "output_proj": "output",
    }
    entries = [
        *norm(f"{theirs}.query_norm", f"{ours}.query_norm"),
        *norm(f"{theirs}.feat_norm", f"{ours}.value_norm"),
    ]
    for a, b in names.items():
        entries += linear(f"{theirs}.attn.{a}", f"{ours}.attention.{b}")
    return entries
