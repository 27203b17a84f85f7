"""The question of the paper's table 3, which score selects, on CIFAR-10.

A strong cut late and a milder one early; `random` and `uniform` do not look at the image.

Command:  python -m train.compare --config configs/compare_cifar10_table3.py
          --workdir runs/cifar10_table3
Hardware: two CPU cores; 24 fine-tunes of about 100 s.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry
from train.config import DataConfig, ModelConfig, OptimConfig

comparison = Comparison(
    models={"Vim-6": ModelConfig(weights="checkpoints/cifar10_vim_dense.safetensors")},
    entries=(
        Entry("Vim-6", "dense"),
        *(
            Entry("Vim-6", score, PruneConfig((4,), 0.18, importance=score))
            for score in ("clip", "sum", "l1", "l2", "random", "uniform")
        ),
        *(
            Entry("Vim-6", score, PruneConfig((2,), 0.5, importance=score))
            for score in ("clip", "uniform")
        ),
    ),
    seeds=(0, 1, 2),
    data=DataConfig(augment=False),
    optim=OptimConfig(lr=5e-4, epochs=0.5, warmup_epochs=0.05, ema=0.99, distill=0.8),
)
