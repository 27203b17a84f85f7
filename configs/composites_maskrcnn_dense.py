r"""A small Mask R-CNN on PlainMamba, boxes and masks of composites, dense.

Data:      python -m train.data.composites --path data/composites
Command:   python -m train.finetune --config configs/composites_maskrcnn_dense.py \
               --workdir runs/composites_maskrcnn_dense
Hardware:  two CPU cores.
Result:    of this recipe by train.compare: results/compare_composites_instances.md
"""

from train.recipes.small import mask_rcnn

config = mask_rcnn(None)
