r"""Mask R-CNN on PlainMamba-L3, COCO, pruned, hidden states aligned.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l3_prune.py \
               --workdir runs/coco_maskrcnn_l3_prune
Hardware:  not run yet.
Published: box AP 46.5, AP50 67.7, AP75 50.8; mask AP 40.6, AP50 64.1, AP75 43.4.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import mask_rcnn

config = mask_rcnn("plainmamba_l3", PAPER["maskrcnn_plainmamba_l3"])
