r"""Vim-S on ImageNet-1k, pruned the EViT way, without alignment (table 1 of the paper).

Weights:   vim_s_midclstok_80p5acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_vim_small_evit.py \
               --workdir runs/vim_small_evit
Hardware:  not run yet.
Published: 74.8% of the validation photos, 3.57 G multiply-adds, one of Vim's directions counted.
Logs:      no open run of the authors backs this row.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.registry import published_schedule
from train.recipes import vim

config = vim(
    "vim_small_patch16_224",
    dataclasses.replace(published_schedule("vim_small_patch16_224"), alignment="none"),
)
