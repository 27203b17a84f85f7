r"""RetinaNet on PlainMamba-L2, COCO, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_retinanet_l2_dense.py \
               --workdir runs/coco_retinanet_l2_dense
Hardware:  not run yet.
Published: box AP 43.9.
Result:    not measured yet.
"""

from train.recipes.dense import retinanet

config = retinanet("plainmamba_l2", None)
