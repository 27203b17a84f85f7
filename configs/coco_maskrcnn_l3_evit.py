r"""Mask R-CNN on PlainMamba-L3, COCO, pruned the EViT way, without alignment.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l3_evit.py \
               --workdir runs/coco_maskrcnn_l3_evit
Hardware:  not run yet.
Published: box AP 44.2, AP50 66.4, AP75 49.7; mask AP 39.5, AP50 62.8, AP75 42.7.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import mask_rcnn

config = mask_rcnn(
    "plainmamba_l3",
    dataclasses.replace(PAPER["maskrcnn_plainmamba_l3"], alignment="none"),
)
