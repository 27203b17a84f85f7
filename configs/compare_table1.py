"""Table 1 of the paper: dense, pruned the EViT way, and pruned with alignment, on ImageNet.

No ImageNet weights come with the project, so by default this measures FLOPs, speed and memory of
models with random parameters, and shows the published accuracies. For accuracies, convert the
official weights to weights/NAME.safetensors (`python -m ssmjax.convert`), prepare imagenet2012 with
tensorflow-datasets, and add `--weights weights --measure accuracy speed`. Each entry is then
fine-tuned for an epoch, on random parts of photos, flipped or not; the recipes of the papers, of 30
epochs, are in configs/imagenet_*.py. The keep ratios, which the paper does not give, are those that
reproduce its FLOPs. No open run of the authors backs the EViT rows.

Command:  python -m train.compare --config configs/compare_table1.py --workdir runs/table1
Hardware: a GPU; on a CPU add --eval-batch-size 4.
Result:   results/compare_table1.md, on two CPU cores at batch 1; accuracies not yet measured.
"""

from dataclasses import replace

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry, Published
from train.config import ModelConfig, OptimConfig
from train.recipes import COMPARED


def rows(
    backbone: str, prune: PruneConfig, dense: Published, evit: Published, aligned: Published
) -> tuple[Entry, ...]:
    """The three rows of one backbone."""
    return (
        Entry(backbone, "dense", None, dense),
        Entry(backbone, "EViT way", replace(prune, alignment="none"), evit),
        Entry(backbone, "aligned", prune, aligned),
    )


comparison = Comparison(
    models={
        "Vim-T": ModelConfig("vim_tiny_patch16_224"),
        "Vim-S": ModelConfig("vim_small_patch16_224"),
        "PlainMamba-L1": ModelConfig("plainmamba_l1"),
        "PlainMamba-L2": ModelConfig("plainmamba_l2"),
        "PlainMamba-L3": ModelConfig("plainmamba_l3"),
        "DeiT-T": ModelConfig("deit_tiny_patch16_224"),
        "DeiT-S": ModelConfig("deit_small_patch16_224"),
        "DeiT-B": ModelConfig("deit_base_patch16_224"),
    },
    entries=(
        *rows(
            "Vim-T",
            PruneConfig(after_blocks=(10, 20), keep_ratio=0.8),
            dense=Published(76.1, 1.5),
            evit=Published(71.3, 1.28),
            aligned=Published(75.1, 1.29),
        ),
        *rows(
            "Vim-S",
            PruneConfig(after_blocks=(5, 10, 15), keep_ratio=0.8),
            dense=Published(80.5, 5.1, 1.0),
            evit=Published(74.8, 3.57, 1.30),
            aligned=Published(78.8, 3.60, 1.27),
        ),
        *rows(
            "PlainMamba-L1",
            PruneConfig(after_blocks=(5, 10), keep_ratio=0.8),
            dense=Published(77.9, 3.0),
            evit=Published(75.0, 2.44),
            aligned=Published(77.4, 2.46),
        ),
        *rows(
            "PlainMamba-L2",
            PruneConfig(after_blocks=(5, 10, 15), keep_ratio=0.82),
            dense=Published(81.6, 8.1),
            evit=Published(78.3, 6.22),
            aligned=Published(81.0, 6.27),
        ),
        *rows(
            "PlainMamba-L3",
            PruneConfig(after_blocks=(5, 11, 17, 23), keep_ratio=0.75),
            dense=Published(82.3, 14.4, 1.0),
            evit=Published(78.9, 8.35, 1.47),
            aligned=Published(81.7, 8.44, 1.43),
        ),
        Entry("DeiT-T", "dense", None, Published(72.2, 1.3)),
        Entry("DeiT-S", "dense", None, Published(79.8, 4.6)),
        Entry("DeiT-B", "dense", None, Published(81.8, 17.6)),
    ),
    measure=("speed",),
    data=COMPARED,
    optim=OptimConfig(lr=2e-5, epochs=1, warmup_epochs=0.1, ema=0.999, distill=0.8),
    eval_batch_size=64,
)
