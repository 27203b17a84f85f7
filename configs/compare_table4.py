"""Table 4 of the paper: what alignment costs in speed and brings in accuracy, on ImageNet.

Speed and published accuracies by default; configs/compare_table1.py says how to measure accuracies.
Table 4 prints 75.4% and 79.3% without alignment, where table 1's EViT rows print 74.8% and 78.9%.

Command:  python -m train.compare --config configs/compare_table4.py --workdir runs/table4
Hardware: a GPU; on a CPU add --eval-batch-size 4.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry, Published
from train.config import ModelConfig, OptimConfig
from train.recipes import COMPARED

VIM, MAMBA = ((5, 10, 15), 0.8), ((5, 11, 17, 23), 0.75)

comparison = Comparison(
    models={
        "Vim-S": ModelConfig("vim_small_patch16_224"),
        "PlainMamba-L3": ModelConfig("plainmamba_l3"),
    },
    entries=(
        Entry("Vim-S", "dense", None, Published(80.5, 5.1, 1.0)),
        Entry("Vim-S", "none", PruneConfig(*VIM, alignment="none"), Published(75.4, 3.57, 1.30)),
        Entry("Vim-S", "previous", PruneConfig(*VIM), Published(78.8, 3.60, 1.27)),
        Entry("Vim-S", "zero_token", PruneConfig(*VIM, alignment="zero_token")),
        Entry("PlainMamba-L3", "dense", None, Published(82.3, 14.4, 1.0)),
        Entry(
            "PlainMamba-L3",
            "none",
            PruneConfig(*MAMBA, alignment="none"),
            Published(79.3, 8.35, 1.47),
        ),
        Entry("PlainMamba-L3", "previous", PruneConfig(*MAMBA), Published(81.7, 8.44, 1.43)),
        Entry("PlainMamba-L3", "zero_token", PruneConfig(*MAMBA, alignment="zero_token")),
    ),
    measure=("speed",),
    data=COMPARED,
    optim=OptimConfig(lr=2e-5, epochs=1, warmup_epochs=0.1, ema=0.999, distill=0.8),
    eval_batch_size=64,
)
