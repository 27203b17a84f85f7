r"""Speed of Mask R-CNN at 800 x 1333, dense against the schedules of the paper's classifiers.

Fresh weights, which find next to nothing: speed hardly depends on them. Images are padded to
800 x 1344, as in training.

Command:  python -m train.compare --config configs/compare_speed_800x1333.py \
              --workdir runs/speed_800x1333
Hardware: two CPU cores; on a GPU add --eval-batch-size 8.
Result:   results/compare_speed_800x1333.md
"""

from dataclasses import replace

from ssmjax.dense.config import PAPER
from train.compare.config import Comparison, Entry
from train.config import ModelConfig
from train.data.dense_config import DetectionData

LABEL, NAME = "Mask R-CNN L3", "maskrcnn_plainmamba_l3"

comparison = Comparison(
    models={LABEL: ModelConfig(NAME)},
    entries=(
        Entry(LABEL, "dense"),
        Entry(LABEL, "EViT way", replace(PAPER[NAME], alignment="none")),
        Entry(LABEL, "aligned", PAPER[NAME]),
    ),
    measure=("speed",),
    data=DetectionData(),
    eval_batch_size=1,
)
