"""The official Vim checkpoint, entry by entry."""

from ssmjax.convert.keymap import Entry, conv1d_depthwise, conv2d, linear, same


def table(depth: int) -> list[Entry]:
    """Every entry of the official state_dict of a Vim of that depth."""
    entries = [
        Entry("cls_token", "cls_token", same),
        Entry("pos_embed", "pos_embed", same),
        Entry("patch_embed.proj.weight", "patch_embed.proj.kernel", conv2d),
        Entry("patch_embed.proj.bias", "patch_embed.proj.bias", same),
        Entry("norm_f.weight", "norm.scale", same),
        Entry("head.weight", "head.kernel", linear),
        Entry("head.bias", "head.bias", same),
    ]
    for i in range(depth):
        theirs, ours = f"layers.{i}.mixer", "blocks.mixer"
        entries += [
            Entry(f"layers.{i}.norm.weight", "blocks.norm.scale", same, i),
            Entry(f"{theirs}.in_proj.weight", f"{ours}.in_proj.kernel", linear, i),
            Entry(f"{theirs}.out_proj.weight", f"{ours}.out_proj.kernel", linear, i),
        ]
        for direction, end, log in (("forward", "", "A_log"), ("backward", "_b", "A_b_log")):
            branch = f"{ours}.{direction}"
            entries += [
                Entry(f"{theirs}.{log}", f"{branch}.A_log", same, i),
                Entry(f"{theirs}.D{end}", f"{branch}.D", same, i),
                Entry(f"{theirs}.conv1d{end}.weight", f"{branch}.conv.kernel", conv1d_depthwise, i),
                Entry(f"{theirs}.conv1d{end}.bias", f"{branch}.conv.bias", same, i),
                Entry(f"{theirs}.x_proj{end}.weight", f"{branch}.x_proj.kernel", linear, i),
                Entry(f"{theirs}.dt_proj{end}.weight", f"{branch}.dt_kernel", linear, i),
                Entry(f"{theirs}.dt_proj{end}.bias", f"{branch}.dt_bias", same, i),
            ]
    return entries
