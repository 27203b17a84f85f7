r"""PlainMamba-L3 on ImageNet-1k, pruned the EViT way, without alignment (table 1 of the paper).

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_plainmamba_l3_evit.py \
               --workdir runs/plainmamba_l3_evit
Hardware:  not run yet.
Published: 78.9% of the validation photos, 8.35 G multiply-adds.
Logs:      no open run of the authors backs this row.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.registry import published_schedule
from train.recipes import plain_mamba

config = plain_mamba(
    "plainmamba_l3",
    dataclasses.replace(published_schedule("plainmamba_l3"), alignment="none"),
)
