r"""Mask R-CNN on PlainMamba-L2, COCO, pruned the EViT way, without alignment.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l2_evit.py \
               --workdir runs/coco_maskrcnn_l2_evit
Hardware:  not run yet.
Published: box AP 43.7, AP50 64.2, AP75 47.6; mask AP 38.3, AP50 62.2, AP75 41.9.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import mask_rcnn

config = mask_rcnn(
    "plainmamba_l2",
    dataclasses.replace(PAPER["maskrcnn_plainmamba_l2"], alignment="none"),
)
