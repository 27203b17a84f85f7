r"""PlainMamba-L1 on ImageNet-1k, dense: what the pruned ones stand beside (table 1 of the paper).

Weights:   plain_mamba_l1.pth, converted as train/recipes/classification.py says.
Command:   python -m train.evaluate --config configs/imagenet_plainmamba_l1_dense.py \
               --checkpoint weights/plainmamba_l1.safetensors
Hardware:  not run yet.
Published: 77.9% of the validation photos, 3.00 G multiply-adds.
Result:    not measured yet.

The same config given to `train.finetune` trains the dense model as long as the pruned ones.
"""

from train.recipes import plain_mamba

config = plain_mamba("plainmamba_l1", None)
