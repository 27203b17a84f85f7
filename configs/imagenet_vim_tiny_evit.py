r"""Vim-T on ImageNet-1k, pruned the EViT way, without alignment (table 1 of the paper).

Weights:   vim_t_midclstok_76p1acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_vim_tiny_evit.py \
               --workdir runs/vim_tiny_evit
Hardware:  not run yet.
Published: 71.3% of the validation photos, 1.28 G multiply-adds, one of Vim's directions counted.
Logs:      no open run of the authors backs this row.
Result:    not measured yet.
"""

import dataclasses

from ssmjax.registry import published_schedule
from train.recipes import vim

config = vim(
    "vim_tiny_patch16_224",
    dataclasses.replace(published_schedule("vim_tiny_patch16_224"), alignment="none"),
)
