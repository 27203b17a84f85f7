r"""Boxes and masks of composites by a small Mask R-CNN, dense against pruned, aligned and not.

Data:     python -m train.data.composites --path data/composites
Command:  python -m train.compare --config configs/compare_composites_instances.py \
              --workdir runs/compare_composites_instances
Hardware: two CPU cores.
Result:   results/compare_composites_instances.md
"""

from train.recipes.small import compared, mask_rcnn

comparison = compared("Mask R-CNN", mask_rcnn)
