r"""UperNet on Vim-T, ADE20K, dense.

Weights:   python -m ssmjax.convert vim_t_midclstok_76p1acc.pth --model vim_tiny_patch16_224 \
               --out weights/vim_tiny_patch16_224.safetensors
Command:   python -m train.finetune --config configs/ade20k_upernet_vim_tiny_dense.py \
               --workdir runs/ade20k_upernet_vim_tiny_dense
Hardware:  not run yet.
Published: mIoU 41.0.
Result:    not measured yet.
"""

from train.recipes.dense import upernet_vim

config = upernet_vim("vim_tiny", None, lr=2e-4, weight_decay=0.1, layer_decay=0.92)
