r"""A small UperNet on PlainMamba, classes of pixels of composites, pruned, hidden states aligned.

Data:      python -m train.data.composites --path data/composites
Command:   python -m train.finetune --config configs/composites_upernet_prune.py \
               --workdir runs/composites_upernet_prune
Hardware:  two CPU cores.
Result:    of this recipe by train.compare: results/compare_composites_segments.md
"""

from train.recipes.small import PRUNE, upernet

config = upernet(PRUNE)
