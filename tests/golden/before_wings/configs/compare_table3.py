"""Table 3 of the paper: which score selects, on ImageNet.

Speed and published accuracies by default; configs/compare_table1.py says how to measure accuracies.
Which of the two norms comes first in the paper's table is not known here.

Command:  python -m train.compare --config configs/compare_table3.py --workdir runs/table3
Hardware: a GPU; on a CPU add --eval-batch-size 4.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry, Published
from train.config import ModelConfig, OptimConfig
from train.recipes import COMPARED

SCHEDULES = {"Vim-S": ((5, 10, 15), 0.8), "PlainMamba-L3": ((5, 11, 17, 23), 0.75)}
TOP1 = {
    "Vim-S": {"l1": 78.6, "l2": 78.6, "sum": 77.4, "clip": 78.8},
    "PlainMamba-L3": {"l1": 81.6, "l2": 81.5, "sum": 80.5, "clip": 81.7},
}

comparison = Comparison(
    models={
        "Vim-S": ModelConfig("vim_small_patch16_224"),
        "PlainMamba-L3": ModelConfig("plainmamba_l3"),
    },
    entries=(
        Entry("Vim-S", "dense", None, Published(80.5, 5.1)),
        Entry("PlainMamba-L3", "dense", None, Published(82.3, 14.4)),
        *(
            Entry(
                backbone,
                importance,
                PruneConfig(*SCHEDULES[backbone], importance=importance),
                Published(top1),
            )
            for backbone, scores in TOP1.items()
            for importance, top1 in scores.items()
        ),
    ),
    measure=("speed",),
    data=COMPARED,
    optim=OptimConfig(lr=2e-5, epochs=1, warmup_epochs=0.1, ema=0.999, distill=0.8),
    eval_batch_size=64,
)
