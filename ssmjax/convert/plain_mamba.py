"""The official PlainMamba checkpoint (github.com/ChenhongyiYang/PlainMamba), entry by entry."""

from ssmjax.convert.keymap import (
    CONV2D,
    DEPTHWISE_2D,
    LINEAR,
    SAME,
    Entry,
    Family,
    openmmlab_file,
)
from ssmjax.models.plain_mamba import PlainMambaConfig


def _table(config: PlainMambaConfig) -> list[Entry]:
    return [
        *trunk_table(config),
        Entry("backbone.ln1.weight", "norm.scale", SAME),
        Entry("backbone.ln1.bias", "norm.bias", SAME),
        Entry("head.fc.weight", "head.kernel", LINEAR),
        Entry("head.fc.bias", "head.bias", SAME),
    ]


def trunk_table(config: PlainMambaConfig, at: str = "") -> list[Entry]:
    """The entries of `ssmjax.models.plain_mamba.PlainMambaTrunk`, in official order.

    Args:
      config: of the trunk.
      at: where it stands in the model, as "backbone.trunk."; nothing where it is the model.
    """
    entries = [Entry("backbone.pos_embed", f"{at}pos_embed", SAME, positions=config)]
    stem = ["stem.0", *(f"convs.{3 * i}" for i in range(config.stem_convs))]
    norms = ["stem.1", *(f"convs.{3 * i + 1}" for i in range(config.stem_convs))]
    for i, (conv, norm) in enumerate(zip(stem, norms, strict=True)):
        theirs, ours = "backbone.patch_embed", f"{at}patch_embed.stem.{i}"
        entries += [
            Entry(f"{theirs}.{conv}.weight", f"{ours}.conv.kernel", CONV2D),
            *batch_norm(f"{theirs}.{norm}", f"{ours}.norm"),
        ]
    entries += [
        Entry("backbone.patch_embed.projection.weight", f"{at}patch_embed.proj.kernel", CONV2D),
        Entry("backbone.patch_embed.projection.bias", f"{at}patch_embed.proj.bias", SAME),
    ]
    for i in range(config.depth):
        theirs, mamba, ours = (
            f"backbone.layers.{i}",
            f"backbone.layers.{i}.mamba",
            f"{at}blocks.mixer",
        )
        entries += [
            Entry(f"{theirs}.norm.weight", f"{at}blocks.norm.scale", SAME, i),
            Entry(f"{theirs}.norm.bias", f"{at}blocks.norm.bias", SAME, i),
        ]
        if i in config.dwconv_blocks:
            dwconv = f"{at}dwconvs.{config.dwconv_blocks.index(i)}"
            entries += [
                Entry(f"{theirs}.dw.0.weight", f"{dwconv}.conv.kernel", DEPTHWISE_2D),
                *batch_norm(f"{theirs}.dw.1", f"{dwconv}.norm"),
            ]
        entries += [
            Entry(f"{mamba}.A_log", f"{ours}.A_log", SAME, i),
            Entry(f"{mamba}.D", f"{ours}.D", SAME, i),
            Entry(f"{mamba}.direction_Bs", f"{ours}.direction_B", SAME, i),
            Entry(f"{mamba}.in_proj.weight", f"{ours}.in_proj.kernel", LINEAR, i),
            Entry(f"{mamba}.in_proj.bias", f"{ours}.in_proj.bias", SAME, i),
            Entry(f"{mamba}.conv2d.weight", f"{ours}.conv.kernel", DEPTHWISE_2D, i),
            Entry(f"{mamba}.conv2d.bias", f"{ours}.conv.bias", SAME, i),
            Entry(f"{mamba}.x_proj.weight", f"{ours}.x_proj.kernel", LINEAR, i),
            Entry(f"{mamba}.dt_proj.weight", f"{ours}.dt_kernel", LINEAR, i),
            Entry(f"{mamba}.dt_proj.bias", f"{ours}.dt_bias", SAME, i),
            Entry(f"{mamba}.out_proj.weight", f"{ours}.out_proj.kernel", LINEAR, i),
            Entry(f"{mamba}.out_proj.bias", f"{ours}.out_proj.bias", SAME, i),
        ]
    return entries


def batch_norm(theirs: str, ours: str) -> list[Entry]:
    """The entries of a `ssmjax.layers.norm.BatchNorm`."""
    names = {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
        "num_batches_tracked": "count",
    }
    return [Entry(f"{theirs}.{a}", f"{ours}.{b}", SAME) for a, b in names.items()]


FAMILY = Family(table=_table, wrap=openmmlab_file, head="head.fc.bias")
