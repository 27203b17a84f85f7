r"""Vim-T on ImageNet-1k, pruned, hidden states aligned (table 1 of the paper).

Weights:   vim_t_midclstok_76p1acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_vim_tiny_prune.py \
               --workdir runs/vim_tiny_prune
Hardware:  not run yet.
Published: 75.1% of the validation photos, 1.29 G multiply-adds, one of Vim's directions counted.
Logs:      the authors' open run of this schedule: 71.10% before fine-tuning, 74.81% at best;
           training loss in epochs 1, 2, 16 and 30: 3.5444, 3.4924, 3.4337, 3.4293. Tokens were
           masked there, not removed.
Result:    not measured yet.
"""

from ssmjax.registry import published_schedule
from train.recipes import vim

config = vim("vim_tiny_patch16_224", published_schedule("vim_tiny_patch16_224"))
