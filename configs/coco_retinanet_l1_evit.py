r"""RetinaNet on PlainMamba-L1, COCO, pruned the EViT way, without alignment.

Weights:   python -m ssmjax.convert plain_mamba_l1.pth --model plainmamba_l1 \
               --out weights/plainmamba_l1.safetensors
Command:   python -m train.finetune --config configs/coco_retinanet_l1_evit.py \
               --workdir runs/coco_retinanet_l1_evit
Hardware:  not run yet.
Published: nothing; the paper does not prune it.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import retinanet

config = retinanet(
    "plainmamba_l1",
    dataclasses.replace(PAPER["retinanet_plainmamba_l1"], alignment="none"),
)
