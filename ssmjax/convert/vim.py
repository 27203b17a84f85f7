"""The official Vim checkpoint (github.com/hustvl/Vim), entry by entry."""

from ssmjax.convert.keymap import (
    DEPTHWISE_1D,
    LINEAR,
    SAME,
    Entry,
    Family,
    conv,
    linear,
    projections,
)
from ssmjax.models.vim import VimConfig


def _table(config: VimConfig) -> list[Entry]:
    return [
        Entry("cls_token", "cls_token", SAME),
        *embedding_table(config),
        *linear("head", "head"),
        *blocks_table(config),
    ]


def embedding_table(config: VimConfig, at: str = "", trunk: str = "") -> list[Entry]:
    """The entries of a `ssmjax.models.vim.VimTrunk` before its blocks, in official order.

    Args:
      config: of the trunk.
      at: where it stands in the official model, as "backbone."; nothing where it is the model.
      trunk: the same of the model here, as "backbone.trunk.".
    """
    return [
        Entry(f"{at}pos_embed", f"{trunk}pos_embed", SAME, positions=config),
        *conv(f"{at}patch_embed.proj", f"{trunk}patch_embed.proj"),
    ]


def blocks_table(config: VimConfig, at: str = "", trunk: str = "") -> list[Entry]:
    """The entries of its blocks and its norm; the arguments are those of `embedding_table`."""
    entries = []
    for i in range(config.depth):
        theirs, ours = f"{at}layers.{i}.mixer", f"{trunk}blocks.mixer"
        forward, backward = f"{ours}.forward", f"{ours}.backward"
        entries += [
            Entry(f"{theirs}.A_log", f"{forward}.A_log", SAME, i),
            Entry(f"{theirs}.D", f"{forward}.D", SAME, i),
            Entry(f"{theirs}.A_b_log", f"{backward}.A_log", SAME, i),
            Entry(f"{theirs}.D_b", f"{backward}.D", SAME, i),
            Entry(f"{theirs}.in_proj.weight", f"{ours}.in_proj.kernel", LINEAR, i),
        ]
        for end, branch in (("", forward), ("_b", backward)):
            entries += linear(f"{theirs}.conv1d{end}", f"{branch}.conv", DEPTHWISE_1D, i)
            entries += projections(theirs, branch, i, end)
        entries += [
            Entry(f"{theirs}.out_proj.weight", f"{ours}.out_proj.kernel", LINEAR, i),
            Entry(f"{at}layers.{i}.norm.weight", f"{trunk}blocks.norm.scale", SAME, i),
        ]
    return [*entries, Entry(f"{at}norm_f.weight", f"{trunk}norm.scale", SAME)]


FAMILY = Family(table=_table, wrap=lambda state: {"model": state}, head="head.bias")
