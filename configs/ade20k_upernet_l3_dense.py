r"""UperNet on PlainMamba-L3, ADE20K, dense: what the pruned ones stand beside.

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_l3_dense.py \
               --workdir runs/ade20k_upernet_l3_dense
Hardware:  not run yet.
Published: mIoU 49.1.
Result:    not measured yet.
"""

from train.recipes.dense import upernet

config = upernet("plainmamba_l3", None)
