r"""UperNet on PlainMamba-L1, ADE20K, pruned, hidden states aligned.

Weights:   python -m ssmjax.convert plain_mamba_l1.pth --model plainmamba_l1 \
               --out weights/plainmamba_l1.safetensors
Command:   python -m train.finetune --config configs/ade20k_upernet_l1_prune.py \
               --workdir runs/ade20k_upernet_l1_prune
Hardware:  not run yet.
Published: mIoU 44.1.
Result:    not measured yet.
"""

from ssmjax.dense.config import PAPER
from train.dense_recipes import upernet

config = upernet("plainmamba_l1", PAPER["upernet_plainmamba_l1"])
