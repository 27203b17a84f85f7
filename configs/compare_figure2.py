"""Figure 2 of the paper: pruning that was made for ViTs hurts Vim; over keep ratios, on ImageNet.

EViT prunes DeiT by its class token's attention and fuses the dropped tokens into one.
The authors' open runs do not back the published accuracy of Vim-S the EViT way.
Speed and published accuracies by default; configs/compare_table1.py says how to measure accuracies.

Command:  python -m train.compare --config configs/compare_figure2.py --workdir runs/figure2
Hardware: a GPU; on a CPU add --eval-batch-size 4.
Result:   not yet measured.
"""

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry, Published
from train.config import ModelConfig, OptimConfig
from train.recipes import COMPARED

RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5)
PUBLISHED = {
    ("none", 0.8): Published(74.8, 3.57, 1.30),
    ("previous", 0.8): Published(78.8, 3.60, 1.27),
}
METHODS = {"none": "EViT way", "previous": "aligned"}

comparison = Comparison(
    models={
        "DeiT-S": ModelConfig("deit_small_patch16_224"),
        "Vim-S": ModelConfig("vim_small_patch16_224"),
    },
    entries=(
        Entry("DeiT-S", "dense", None, Published(79.8, 4.6)),
        *(
            Entry(
                "DeiT-S",
                "EViT",
                PruneConfig((4, 7, 10), ratio, importance="attention", reduction="fuse"),
                Published(79.5 if ratio == 0.7 else None),
            )
            for ratio in RATIOS
        ),
        Entry("Vim-S", "dense", None, Published(80.5, 5.1, 1.0)),
        *(
            Entry(
                "Vim-S",
                method,
                PruneConfig((5, 10, 15), ratio, alignment=alignment),
                PUBLISHED.get((alignment, ratio), Published()),
            )
            for alignment, method in METHODS.items()
            for ratio in RATIOS
        ),
    ),
    measure=("speed",),
    data=COMPARED,
    optim=OptimConfig(lr=2e-5, epochs=1, warmup_epochs=0.1, ema=0.999, distill=0.8),
    eval_batch_size=64,
)
