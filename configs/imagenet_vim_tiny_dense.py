r"""Vim-T on ImageNet-1k, dense: what the pruned ones stand beside (table 1 of the paper).

Weights:   vim_t_midclstok_76p1acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.evaluate --config configs/imagenet_vim_tiny_dense.py \
               --checkpoint weights/vim_tiny_patch16_224.safetensors
Hardware:  not run yet.
Published: 76.1% of the validation photos, 1.50 G multiply-adds, one of Vim's directions counted.
Result:    not measured yet.

The same config given to `train.finetune` trains the dense model as long as the pruned ones.
"""

from train.recipes import vim

config = vim("vim_tiny_patch16_224", None)
