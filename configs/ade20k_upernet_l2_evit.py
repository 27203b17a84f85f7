r"""UperNet on PlainMamba-L2, ADE20K, pruned the EViT way, without alignment.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_l2_evit.py \
               --workdir runs/ade20k_upernet_l2_evit
Hardware:  not run yet.
Published: mIoU 44.1.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import upernet

config = upernet(
    "plainmamba_l2",
    dataclasses.replace(PAPER["upernet_plainmamba_l2"], alignment="none"),
)
