"""The official Vim checkpoint (github.com/hustvl/Vim), entry by entry."""

from functools import partial

from ssmjax.convert.keymap import (
    CONV2D,
    DEPTHWISE_1D,
    LINEAR,
    SAME,
    Entry,
    Family,
    from_square,
)
from ssmjax.models.vim import VimConfig


def _table(config: VimConfig) -> list[Entry]:
    entries = [
        Entry("cls_token", "cls_token", SAME),
        Entry("pos_embed", "pos_embed", SAME, resize=partial(from_square, config=config)),
        Entry("patch_embed.proj.weight", "patch_embed.proj.kernel", CONV2D),
        Entry("patch_embed.proj.bias", "patch_embed.proj.bias", SAME),
        Entry("head.weight", "head.kernel", LINEAR),
        Entry("head.bias", "head.bias", SAME),
    ]
    for i in range(config.depth):
        theirs, ours = f"layers.{i}.mixer", "blocks.mixer"
        forward, backward = f"{ours}.forward", f"{ours}.backward"
        entries += [
            Entry(f"{theirs}.A_log", f"{forward}.A_log", SAME, i),
            Entry(f"{theirs}.D", f"{forward}.D", SAME, i),
            Entry(f"{theirs}.A_b_log", f"{backward}.A_log", SAME, i),
            Entry(f"{theirs}.D_b", f"{backward}.D", SAME, i),
            Entry(f"{theirs}.in_proj.weight", f"{ours}.in_proj.kernel", LINEAR, i),
        ]
        for end, branch in (("", forward), ("_b", backward)):
            entries += [
                Entry(f"{theirs}.conv1d{end}.weight", f"{branch}.conv.kernel", DEPTHWISE_1D, i),
                Entry(f"{theirs}.conv1d{end}.bias", f"{branch}.conv.bias", SAME, i),
                Entry(f"{theirs}.x_proj{end}.weight", f"{branch}.x_proj.kernel", LINEAR, i),
                Entry(f"{theirs}.dt_proj{end}.weight", f"{branch}.dt_kernel", LINEAR, i),
                Entry(f"{theirs}.dt_proj{end}.bias", f"{branch}.dt_bias", SAME, i),
            ]
        entries += [
            Entry(f"{theirs}.out_proj.weight", f"{ours}.out_proj.kernel", LINEAR, i),
            Entry(f"layers.{i}.norm.weight", "blocks.norm.scale", SAME, i),
        ]
    return [*entries, Entry("norm_f.weight", "norm.scale", SAME)]


FAMILY = Family(table=_table, wrap=lambda state: {"model": state}, head="head.bias")
