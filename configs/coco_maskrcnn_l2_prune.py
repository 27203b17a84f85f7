r"""Mask R-CNN on PlainMamba-L2, COCO, pruned, hidden states aligned.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l2_prune.py \
               --workdir runs/coco_maskrcnn_l2_prune
Hardware:  not run yet.
Published: box AP 45.5, AP50 66.2, AP75 49.9; mask AP 40.1, AP50 63.3, AP75 42.7.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import mask_rcnn

config = mask_rcnn("plainmamba_l2", PAPER["maskrcnn_plainmamba_l2"])
