r"""RetinaNet on PlainMamba-L1, COCO, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_retinanet_l1_dense.py \
               --workdir runs/coco_retinanet_l1_dense
Hardware:  not run yet.
Published: box AP 41.7.
Result:    not measured yet.
"""

from train.recipes.dense import retinanet

config = retinanet("plainmamba_l1", None)
