"""The official PlainMamba checkpoint (github.com/ChenhongyiYang/PlainMamba), entry by entry."""

from ssmjax.convert.keymap import (
    DEPTHWISE_2D,
    SAME,
    Entry,
    Family,
    conv,
    conv_norm,
    linear,
    norm,
    openmmlab_file,
    projections,
)
from ssmjax.models.plain_mamba import PlainMambaConfig


def _table(config: PlainMambaConfig) -> list[Entry]:
    return [*trunk_table(config), *norm("backbone.ln1", "norm"), *linear("head.fc", "head")]


def trunk_table(config: PlainMambaConfig, at: str = "") -> list[Entry]:
    """The entries of `ssmjax.models.plain_mamba.PlainMambaTrunk`, in official order.

    Args:
      config: of the trunk.
      at: where it stands in the model, as "backbone.trunk."; nothing where it is the model.
    """
    entries = [Entry("backbone.pos_embed", f"{at}pos_embed", SAME, positions=config)]
    theirs, ours = "backbone.patch_embed", f"{at}patch_embed"
    stem = [("stem.0", "stem.1")]
    stem += [(f"convs.{3 * i}", f"convs.{3 * i + 1}") for i in range(config.stem_convs)]
    for i, (kernel, after) in enumerate(stem):
        entries += conv_norm(f"{theirs}.{kernel}", f"{theirs}.{after}", f"{ours}.stem.{i}")
    entries += conv(f"{theirs}.projection", f"{ours}.proj")
    for i in range(config.depth):
        theirs, ours = f"backbone.layers.{i}", f"{at}blocks.mixer"
        entries += norm(f"{theirs}.norm", f"{at}blocks.norm", i)
        if i in config.dwconv_blocks:
            dwconv = f"{at}dwconvs.{config.dwconv_blocks.index(i)}"
            entries += conv_norm(f"{theirs}.dw.0", f"{theirs}.dw.1", dwconv, DEPTHWISE_2D)
        entries += [
            Entry(f"{theirs}.mamba.A_log", f"{ours}.A_log", SAME, i),
            Entry(f"{theirs}.mamba.D", f"{ours}.D", SAME, i),
            Entry(f"{theirs}.mamba.direction_Bs", f"{ours}.direction_B", SAME, i),
            *linear(f"{theirs}.mamba.in_proj", f"{ours}.in_proj", block=i),
            *linear(f"{theirs}.mamba.conv2d", f"{ours}.conv", DEPTHWISE_2D, i),
            *projections(f"{theirs}.mamba", ours, i),
            *linear(f"{theirs}.mamba.out_proj", f"{ours}.out_proj", block=i),
        ]
    return entries


FAMILY = Family(table=_table, wrap=openmmlab_file, head="head.fc.bias")
