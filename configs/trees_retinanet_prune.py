r"""A small RetinaNet on PlainMamba, boxes of trees, pruned, hidden states aligned.

Data:      python -m train.data.trees --path data/trees
Command:   python -m train.finetune --config configs/trees_retinanet_prune.py \
               --workdir runs/trees_retinanet_prune
Hardware:  two CPU cores.
Result:    of this recipe by train.compare: results/compare_trees.md
"""

from train.recipes.small import PRUNE, retinanet

config = retinanet(PRUNE)
