"""Prune the dense Vim of the demo after blocks 2 and 4 and fine-tune it on CIFAR-10.

Command:  python -m train.finetune --config configs/cifar10_vim_prune.py --workdir runs/demo
Hardware: two CPU cores.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.config import Config, ModelConfig, OptimConfig

config = Config(
    model=ModelConfig(weights="checkpoints/cifar10_vim_dense.safetensors"),
    optim=OptimConfig(lr=5e-4, epochs=3, warmup_epochs=0.1, ema=0.998),
    prune=PruneConfig(after_blocks=(2, 4), keep_ratio=0.68),
)
