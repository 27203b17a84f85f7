r"""PlainMamba-L2 on ImageNet-1k, dense: what the pruned ones stand beside (table 1 of the paper).

Weights:   plain_mamba_l2.pth, converted as train/recipes/classification.py says.
Command:   python -m train.evaluate --config configs/imagenet_plainmamba_l2_dense.py \
               --checkpoint weights/plainmamba_l2.safetensors
Hardware:  not run yet.
Published: 81.6% of the validation photos, 8.10 G multiply-adds.
Result:    not measured yet.

The same config given to `train.finetune` trains the dense model as long as the pruned ones.
"""

from train.recipes import plain_mamba

config = plain_mamba("plainmamba_l2", None)
