r"""Vim-S on ImageNet-1k, pruned, hidden states aligned (table 1 of the paper).

Weights:   python -m ssmjax.convert vim_s_midclstok_80p5acc.pth --model vim_small_patch16_224 \
               --out weights/vim_small_patch16_224.safetensors
Command:   python -m train.finetune --config configs/imagenet_vim_small_prune.py \
               --workdir runs/vim_small_prune
Hardware:  not run yet.
Published: 78.8% of the validation photos, 3.60 G multiply-adds, one of Vim's directions counted.
Result:    not measured yet.
"""

from ssmjax.registry import published_schedule
from train.recipes import vim

config = vim("vim_small_patch16_224", published_schedule("vim_small_patch16_224"))
