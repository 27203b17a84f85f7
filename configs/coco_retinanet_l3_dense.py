r"""RetinaNet on PlainMamba-L3, COCO, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_retinanet_l3_dense.py \
               --workdir runs/coco_retinanet_l3_dense
Hardware:  not run yet.
Published: box AP 44.8.
Result:    not measured yet.
"""

from train.recipes.dense import retinanet

config = retinanet("plainmamba_l3", None)
