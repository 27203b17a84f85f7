"""Speed of UperNet at 512 x 512, dense against the schedules of the paper's classifiers.

Fresh weights, since speed does not depend on them.

Command:  python -m train.compare --config configs/compare_speed_512.py --workdir runs/speed_512
Hardware: two CPU cores; on a GPU add --eval-batch-size 8.
Result:   results/compare_speed_512.md
"""

from dataclasses import replace

from ssmjax.dense.config import PAPER
from train.compare.config import Comparison, Entry
from train.config import ModelConfig
from train.data.dense.config import SegmentationData

MODELS = {"UperNet L1": "upernet_plainmamba_l1", "UperNet L3": "upernet_plainmamba_l3"}

comparison = Comparison(
    models={label: ModelConfig(name) for label, name in MODELS.items()},
    entries=tuple(
        entry
        for label, name in MODELS.items()
        for entry in (
            Entry(label, "dense"),
            Entry(label, "EViT way", replace(PAPER[name], alignment="none")),
            Entry(label, "aligned", PAPER[name]),
        )
    ),
    measure=("speed",),
    data=SegmentationData(scale=(512, 512)),
    eval_batch_size=1,
)
