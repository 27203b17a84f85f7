r"""Mask R-CNN on PlainMamba-L1, COCO, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l1_dense.py \
               --workdir runs/coco_maskrcnn_l1_dense
Hardware:  not run yet.
Published: box AP 44.1, AP50 64.8, AP75 47.9; mask AP 39.1, AP50 61.6, AP75 41.9.
Result:    not measured yet.
"""

from train.recipes.dense import mask_rcnn

config = mask_rcnn("plainmamba_l1", None)
