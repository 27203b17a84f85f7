r"""UperNet on PlainMamba-L1, ADE20K, pruned, hidden states aligned.

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_l1_prune.py \
               --workdir runs/ade20k_upernet_l1_prune
Hardware:  not run yet.
Published: mIoU 44.1.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import upernet

config = upernet("plainmamba_l1", PAPER["upernet_plainmamba_l1"])
