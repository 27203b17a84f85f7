r"""RetinaNet on PlainMamba-L1, COCO, pruned, hidden states aligned.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/coco_retinanet_l1_prune.py \
               --workdir runs/coco_retinanet_l1_prune
Hardware:  not run yet.
Published: nothing; the paper does not prune it.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import retinanet

config = retinanet("plainmamba_l1", PAPER["retinanet_plainmamba_l1"])
