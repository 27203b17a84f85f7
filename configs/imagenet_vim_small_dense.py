r"""Vim-S on ImageNet-1k, dense: what the pruned ones stand beside (table 1 of the paper).

Weights:   vim_s_midclstok_80p5acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.evaluate --config configs/imagenet_vim_small_dense.py \
               --checkpoint weights/vim_small_patch16_224.safetensors
Hardware:  not run yet.
Published: 80.5% of the validation photos, 5.10 G multiply-adds, one of Vim's directions counted.
Result:    not measured yet.

The same config given to `train.finetune` trains the dense model as long as the pruned ones.
"""

from train.recipes import vim

config = vim("vim_small_patch16_224", None)
