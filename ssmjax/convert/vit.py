"""The official DeiT checkpoint (github.com/facebookresearch/deit), entry by entry.

ViT has the same names in timm, where DeiT took them from.
"""

from ssmjax.convert.keymap import SAME, Entry, Family, conv, linear, norm
from ssmjax.models.vit import ViTConfig

_DISTILLED = (
    "a distilled model has it beside the class token, and a second head; take the checkpoint of "
    "the same size without distillation"
)


def _table(config: ViTConfig) -> list[Entry]:
    entries = [
        Entry("cls_token", "cls_token", SAME),
        Entry("pos_embed", "pos_embed", SAME, positions=config),
        *conv("patch_embed.proj", "patch_embed.proj"),
    ]
    for i in range(config.depth):
        for first, *layers in (("norm1", "attn.qkv", "attn.proj"), ("norm2", "mlp.fc1", "mlp.fc2")):
            entries += norm(f"blocks.{i}.{first}", f"blocks.{first}", i)
            for layer in layers:
                entries += linear(f"blocks.{i}.{layer}", f"blocks.{layer}", block=i)
    return [*entries, *norm("norm", "norm"), *linear("head", "head")]


FAMILY = Family(
    table=_table,
    wrap=lambda state: {"model": state},
    head="head.bias",
    refused={"dist_token": _DISTILLED},
)
