"""The question of the paper's table 4, what alignment brings and costs, on CIFAR-10.

Alignment of the scan and of the convolutions under the paper's score; "nothing pruned" is the dense
model after the same fine-tune.

Command:  python -m train.compare --config configs/compare_cifar10_table4.py --workdir runs/table4
Hardware: two CPU cores; 15 fine-tunes of about a minute.
Result:   results/compare_cifar10_table4.md
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry
from train.config import ModelConfig, OptimConfig

WAYS = (
    ("previous", "compact"),
    ("zero_token", "compact"),
    ("none", "compact"),
    ("previous", "aligned"),
)

comparison = Comparison(
    models={"Vim-6": ModelConfig(weights="checkpoints/cifar10_vim_dense.safetensors")},
    entries=(
        Entry("Vim-6", "dense"),
        Entry("Vim-6", "nothing pruned", PruneConfig((4,), 1.0)),
        *(
            Entry(
                "Vim-6",
                f"scan {alignment}, conv {conv}",
                PruneConfig((4,), 0.18, alignment=alignment, conv=conv),
            )
            for alignment, conv in WAYS
        ),
    ),
    seeds=(0, 1, 2),
    optim=OptimConfig(lr=5e-4, epochs=0.25, warmup_epochs=0.025, ema=0.98, distill=0.8),
)
