r"""UperNet on PlainMamba-L3, ADE20K, pruned the EViT way, without alignment.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_l3_evit.py \
               --workdir runs/ade20k_upernet_l3_evit
Hardware:  not run yet.
Published: mIoU 46.3.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.dense.config import PAPER
from train.recipes.dense import upernet

config = upernet(
    "plainmamba_l3",
    dataclasses.replace(PAPER["upernet_plainmamba_l3"], alignment="none"),
)
