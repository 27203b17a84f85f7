"""The question of the paper's table 3, which tokens to keep, on CIFAR-10.

The paper's scores, ones that do not look at the image, and the literature's training-free merging,
under a deep cut late in the network and a milder one early.

Command:  python -m train.compare --config configs/compare_cifar10_table3.py --workdir runs/table3
Hardware: two CPU cores; 36 fine-tunes of about a minute.
Result:   results/compare_cifar10_table3.md
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry
from train.config import ModelConfig, OptimConfig

LATE, EARLY = ((4,), 0.18), ((2,), 0.5)

comparison = Comparison(
    models={"Vim-6": ModelConfig(weights="checkpoints/cifar10_vim_dense.safetensors")},
    entries=(
        Entry("Vim-6", "dense"),
        *(
            Entry("Vim-6", score, PruneConfig(*LATE, importance=score))
            for score in ("clip", "sum", "l1", "l2", "coverage", "random", "uniform")
        ),
        Entry("Vim-6", "merge, delta", PruneConfig(*LATE, "delta", "none", reduction="merge")),
        *(
            Entry(
                "Vim-6",
                f"merge, {score}",
                PruneConfig(*LATE, f"similarity_{score}", "none", reduction="merge"),
            )
            for score in ("local", "global")
        ),
        Entry("Vim-6", "clip", PruneConfig(*EARLY)),
        Entry("Vim-6", "coverage", PruneConfig(*EARLY, "coverage")),
        Entry("Vim-6", "uniform", PruneConfig(*EARLY, "uniform")),
        Entry(
            "Vim-6",
            "merge, local",
            PruneConfig(*EARLY, "similarity_local", "none", reduction="merge"),
        ),
    ),
    seeds=(0, 1, 2),
    optim=OptimConfig(lr=5e-4, epochs=0.25, warmup_epochs=0.025, ema=0.98, distill=0.8),
)
