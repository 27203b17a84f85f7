r"""UperNet on Vim-S, ADE20K, dense.

Weights:   vim_s_midclstok_80p5acc.pth, converted as train/recipes/classification.py says.
Command:   python -m train.finetune --config configs/ade20k_upernet_vim_small_dense.py \
               --workdir runs/ade20k_upernet_vim_small_dense
Hardware:  not run yet.
Published: mIoU 44.9.
Result:    not measured yet.
"""

from train.recipes.dense import upernet_vim

config = upernet_vim("vim_small", None, lr=1e-4, weight_decay=0.05, layer_decay=0.95)
