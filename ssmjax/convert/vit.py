"""The official DeiT checkpoint (github.com/facebookresearch/deit), entry by entry.

ViT has the same names in timm, where DeiT took them from.
"""

from ssmjax.convert.keymap import CONV2D, LINEAR, SAME, Entry, Family
from ssmjax.models.vit import ViTConfig

_DISTILLED = (
    "a distilled model has it beside the class token, and a second head; take the checkpoint of "
    "the same size without distillation"
)


def _table(config: ViTConfig) -> list[Entry]:
    entries = [
        Entry("cls_token", "cls_token", SAME),
        Entry("pos_embed", "pos_embed", SAME, positions=config),
        Entry("patch_embed.proj.weight", "patch_embed.proj.kernel", CONV2D),
        Entry("patch_embed.proj.bias", "patch_embed.proj.bias", SAME),
    ]
    for i in range(config.depth):
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            entries += _weight_and_bias(f"blocks.{i}.{part}", f"blocks.{part}", i)
    return [*entries, *_weight_and_bias("norm", "norm"), *_weight_and_bias("head", "head")]


def _weight_and_bias(theirs: str, ours: str, block: int | None = None) -> list[Entry]:
    is_norm = "norm" in theirs
    return [
        Entry(
            f"{theirs}.weight",
            f"{ours}.scale" if is_norm else f"{ours}.kernel",
            SAME if is_norm else LINEAR,
            block,
        ),
        Entry(f"{theirs}.bias", f"{ours}.bias", SAME, block),
    ]


FAMILY = Family(
    table=_table,
    wrap=lambda state: {"model": state},
    head="head.bias",
    refused={"dist_token": _DISTILLED},
)
