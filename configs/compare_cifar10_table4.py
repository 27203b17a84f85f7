"""The question of the paper's table 4, what alignment brings and costs, on CIFAR-10.

With the paper's score and with one that ignores the image, and for each way to convolve; "nothing
pruned" is the dense model after the same fine-tune.

Command:  python -m train.compare --config configs/compare_cifar10_table4.py
          --workdir runs/cifar10_table4
Hardware: two CPU cores; 21 fine-tunes of about 100 s.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry
from train.config import DataConfig, ModelConfig, OptimConfig

WAYS = (
    ("clip", "previous", "compact"),
    ("clip", "zero_token", "compact"),
    ("clip", "none", "compact"),
    ("clip", "previous", "aligned"),
    ("uniform", "previous", "compact"),
    ("uniform", "none", "compact"),
)

comparison = Comparison(
    models={"Vim-6": ModelConfig(weights="checkpoints/cifar10_vim_dense.safetensors")},
    entries=(
        Entry("Vim-6", "dense"),
        Entry("Vim-6", "nothing pruned", PruneConfig((4,), 1.0)),
        *(Entry("Vim-6", ", ".join(way), PruneConfig((4,), 0.18, *way)) for way in WAYS),
    ),
    seeds=(0, 1, 2),
    data=DataConfig(augment=False),
    optim=OptimConfig(lr=5e-4, epochs=0.5, warmup_epochs=0.05, ema=0.99, distill=0.8),
)
