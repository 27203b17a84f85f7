"""Configs and models of the official dense configs, as the golden fixtures quote them."""

import dataclasses

from flax import nnx

from ssmjax.convert.dense import adapter_table, features_table
from ssmjax.convert.load import fill
from ssmjax.dense.backbones.adapter import AdapterConfig, PlainMambaAdapter
from ssmjax.dense.backbones.plain_mamba import PlainMambaFeatures
from ssmjax.dense.backbones.ranges import RangesConfig
from ssmjax.models.plain_mamba import PRESETS, PlainMambaConfig


def backbone_config(official: dict, **overrides) -> RangesConfig:
    """The config that an official `backbone` stands for."""
    backbone = dataclasses.replace(_trunk(official), **overrides)
    if official["type"] == "PlainMambaSeg":
        return RangesConfig(backbone, tuple(block + 1 for block in official["out_indices"]))
    return AdapterConfig(
        backbone,
        tuple(last + 1 for _, last in official["interaction_indexes"]),
        heads=official["deform_num_heads"],
        prior_width=official["conv_inplane"],
        points=official["n_points"],
        ffn_ratio=official["cffn_ratio"],
    )


def outline(config: RangesConfig):
    """(The backbone of a config as shapes without values, the places of its official arrays)."""
    kind, table = PlainMambaFeatures, features_table
    if isinstance(config, AdapterConfig):
        kind, table = PlainMambaAdapter, adapter_table
    return nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0))), table(config)


def build(config: RangesConfig, state: dict):
    """The backbone of a config, filled from an official state_dict."""
    model, entries = outline(config)
    fill(model, entries, state)
    return model


def _trunk(official: dict) -> PlainMambaConfig:
    rate = {"drop_path_rate": official["drop_path_rate"]}
    if official["arch"]:
        return dataclasses.replace(PRESETS[f"plainmamba_{official['arch'].lower()}"], **rate)
    mixer = official["layer_cfgs"]["mamba_cfg"]
    return PlainMambaConfig(
        depth=official["num_layers"],
        embed_dim=official["embed_dims"],
        patch_size=official["patch_size"],
        img_size=tuple(official["patch_size"] * side for side in mixer["default_hw_shape"]),
        stem_convs=official["num_convs_patch_embed"],
        dwconv_blocks=tuple(official["layers_with_dwconv"]),
        **{name: mixer[name] for name in ("d_state", "expand", "conv_size")},
        **rate,
    )
