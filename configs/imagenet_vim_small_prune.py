r"""Vim-S on ImageNet-1k, pruned, hidden states aligned (table 1 of the paper).

Weights:   vim_s_midclstok_80p5acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_vim_small_prune.py \
               --workdir runs/vim_small_prune
Hardware:  not run yet.
Published: 78.8% of the validation photos, 3.60 G multiply-adds, one of Vim's directions counted.
Logs:      the authors' open run of this schedule: 73.42% before fine-tuning, 78.37% at best, 78.30%
           at last; training loss in epochs 1, 2, 16 and 30: 3.1873, 3.0752, 2.9728, 2.9497. Other
           schedules of theirs, before and at best: 0.8 after 5 and 15: 77.41%, 79.10%; 0.75 there:
           75.39%, 78.70%; 0.7 there: 72.34%, 78.09%. Tokens were masked there, not removed.
Result:    not measured yet.
"""

from ssmjax.registry import published_schedule
from train.recipes import vim

config = vim("vim_small_patch16_224", published_schedule("vim_small_patch16_224"))
