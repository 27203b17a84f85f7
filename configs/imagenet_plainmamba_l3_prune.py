r"""PlainMamba-L3 on ImageNet-1k, pruned, hidden states aligned (table 1 of the paper).

Weights:   plain_mamba_l3.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/imagenet_plainmamba_l3_prune.py \
               --workdir runs/plainmamba_l3_prune
Hardware:  not run yet.
Published: 81.7% of the validation photos, 8.44 G multiply-adds.
Logs:      none; the authors' open code and runs are of Vim alone.
Result:    not measured yet.
"""

from ssmjax.registry import published_schedule
from train.recipes import plain_mamba

config = plain_mamba("plainmamba_l3", published_schedule("plainmamba_l3"))
