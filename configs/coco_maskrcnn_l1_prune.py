r"""Mask R-CNN on PlainMamba-L1, COCO, pruned, hidden states aligned.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l1_prune.py \
               --workdir runs/coco_maskrcnn_l1_prune
Hardware:  not run yet.
Published: box AP 43.7, AP50 64.6, AP75 47.4; mask AP 38.9, AP50 61.3, AP75 41.5.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import mask_rcnn

config = mask_rcnn("plainmamba_l1", PAPER["maskrcnn_plainmamba_l1"])
