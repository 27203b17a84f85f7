r"""Mask R-CNN on PlainMamba-L1, COCO, pruned the EViT way, without alignment.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l1_evit.py \
               --workdir runs/coco_maskrcnn_l1_evit
Hardware:  not run yet.
Published: box AP 41.9, AP50 62.8, AP75 45.7; mask AP 37.2, AP50 60.1, AP75 40.2.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import mask_rcnn

config = mask_rcnn(
    "plainmamba_l1",
    dataclasses.replace(PAPER["maskrcnn_plainmamba_l1"], alignment="none"),
)
