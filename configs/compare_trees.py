r"""Boxes of trees by a small RetinaNet, dense against pruned, aligned and not.

Data:     python -m train.data.trees --path data/trees
Command:  python -m train.compare --config configs/compare_trees.py \
              --workdir runs/compare_trees
Hardware: two CPU cores.
Result:   results/compare_trees.md
"""

from train.recipes.small import compared, retinanet

comparison = compared("RetinaNet", retinanet)
