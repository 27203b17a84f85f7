r"""A small Mask R-CNN on PlainMamba, boxes and masks of composites, pruned, hidden states aligned.

Data:      python -m train.data.composites --path data/composites
Command:   python -m train.finetune --config configs/composites_maskrcnn_prune.py \
               --workdir runs/composites_maskrcnn_prune
Hardware:  two CPU cores.
Result:    of this recipe by train.compare: results/compare_composites_instances.md
"""

from train.small_recipes import PRUNE, mask_rcnn

config = mask_rcnn(PRUNE)
