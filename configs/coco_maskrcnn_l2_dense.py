r"""Mask R-CNN on PlainMamba-L2, COCO, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l2_dense.py \
               --workdir runs/coco_maskrcnn_l2_dense
Hardware:  not run yet.
Published: box AP 46.0, AP50 66.9, AP75 50.1; mask AP 40.6, AP50 63.8, AP75 43.6.
Result:    not measured yet.
"""

from train.recipes.dense import mask_rcnn

config = mask_rcnn("plainmamba_l2", None)
