r"""UperNet on Vim-T, ADE20K, dense.

Weights:   vim_t_midclstok_76p1acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_vim_tiny_dense.py \
               --workdir runs/ade20k_upernet_vim_tiny_dense
Hardware:  not run yet.
Published: mIoU 41.0.
Result:    not measured yet.
"""

from train.recipes.dense import upernet_vim

config = upernet_vim("vim_tiny", None, lr=2e-4, weight_decay=0.1, layer_decay=0.92)
