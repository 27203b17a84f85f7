r"""Mask R-CNN on PlainMamba-L3, COCO, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_maskrcnn_l3_dense.py \
               --workdir runs/coco_maskrcnn_l3_dense
Hardware:  not run yet.
Published: box AP 46.8, AP50 68.0, AP75 51.1; mask AP 41.2, AP50 64.7, AP75 43.9.
Result:    not measured yet.
"""

from train.recipes.dense import mask_rcnn

config = mask_rcnn("plainmamba_l3", None)
