r"""RetinaNet on PlainMamba-L1, COCO, pruned the EViT way, without alignment.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_retinanet_l1_evit.py \
               --workdir runs/coco_retinanet_l1_evit
Hardware:  not run yet.
Published: nothing; the paper does not prune it.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import retinanet

config = retinanet(
    "plainmamba_l1",
    dataclasses.replace(PAPER["retinanet_plainmamba_l1"], alignment="none"),
)
