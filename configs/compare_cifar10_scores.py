"""Other scores than the paper's, and merging instead of dropping, on CIFAR-10.

`delta` that merges follows MTR, `similarity_global` that merges follows ToMe and R-MeeTo.

Command:  python -m train.compare --config configs/compare_cifar10_scores.py
          --workdir runs/cifar10_scores
Hardware: two CPU cores; 27 fine-tunes of about 100 s.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry
from train.config import DataConfig, ModelConfig, OptimConfig

WAYS = (
    ("clip", "drop"),
    ("clip", "merge"),
    ("coverage", "drop"),
    ("delta", "drop"),
    ("delta", "merge"),
    ("similarity_local", "drop"),
    ("similarity_local", "merge"),
    ("similarity_global", "drop"),
    ("similarity_global", "merge"),
)

comparison = Comparison(
    models={"Vim-6": ModelConfig(weights="checkpoints/cifar10_vim_dense.safetensors")},
    entries=(
        Entry("Vim-6", "dense"),
        *(
            Entry(
                "Vim-6",
                f"{score}, {reduction}",
                PruneConfig((4,), 0.18, importance=score, reduction=reduction),
            )
            for score, reduction in WAYS
        ),
    ),
    seeds=(0, 1, 2),
    data=DataConfig(augment=False),
    optim=OptimConfig(lr=5e-4, epochs=0.5, warmup_epochs=0.05, ema=0.99, distill=0.8),
)
