r"""RetinaNet on PlainMamba-L2, COCO, dense: what the pruned ones stand beside.

Weights:   python -m ssmjax.convert plain_mamba_l2.pth --model plainmamba_l2 \
               --out weights/plainmamba_l2.safetensors
Command:   python -m train.finetune --config configs/coco_retinanet_l2_dense.py \
               --workdir runs/coco_retinanet_l2_dense
Hardware:  not run yet.
Published: box AP 43.9.
Result:    not measured yet.
"""

from train.dense_recipes import retinanet

config = retinanet("plainmamba_l2", None)
