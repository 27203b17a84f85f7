r"""UperNet on PlainMamba-L2, ADE20K, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_l2_dense.py \
               --workdir runs/ade20k_upernet_l2_dense
Hardware:  not run yet.
Published: mIoU 46.8.
Result:    not measured yet.
"""

from train.recipes.dense import upernet

config = upernet("plainmamba_l2", None)
