r"""PlainMamba-L1 on ImageNet-1k, pruned the EViT way, without alignment (table 1 of the paper).

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_plainmamba_l1_evit.py \
               --workdir runs/plainmamba_l1_evit
Hardware:  not run yet.
Published: 75.0% of the validation photos, 2.44 G multiply-adds.
Logs:      no open run of the authors backs this row.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.registry import published_schedule
from train.recipes import plain_mamba

config = plain_mamba(
    "plainmamba_l1",
    dataclasses.replace(published_schedule("plainmamba_l1"), alignment="none"),
)
