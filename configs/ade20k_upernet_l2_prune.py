r"""UperNet on PlainMamba-L2, ADE20K, pruned, hidden states aligned.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_l2_prune.py \
               --workdir runs/ade20k_upernet_l2_prune
Hardware:  not run yet.
Published: mIoU 46.5.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.recipes.dense import upernet

config = upernet("plainmamba_l2", PAPER["upernet_plainmamba_l2"])
