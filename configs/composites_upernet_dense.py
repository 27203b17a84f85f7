r"""A small UperNet on PlainMamba, classes of pixels of composites, dense.

Data:      python -m train.data.composites --path data/composites
Command:   python -m train.finetune --config configs/composites_upernet_dense.py \
               --workdir runs/composites_upernet_dense
Hardware:  two CPU cores.
Result:    of this recipe by train.compare: results/compare_composites_segments.md
"""

from train.recipes.small import upernet

config = upernet(None)
