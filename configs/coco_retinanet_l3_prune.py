r"""RetinaNet on PlainMamba-L3, COCO, pruned, hidden states aligned.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_retinanet_l3_prune.py \
               --workdir runs/coco_retinanet_l3_prune
Hardware:  not run yet.
Published: nothing; the paper does not prune it.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import retinanet

config = retinanet("plainmamba_l3", PAPER["retinanet_plainmamba_l3"])
