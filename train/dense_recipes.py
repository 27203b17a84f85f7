"""How the official code trains detectors and segmentors, and what was chosen for pruned ones.

Weights are those of the ImageNet classifier, as the dense models start from them; the paper does
not say what its pruned ones start from, nor where they prune. Chosen: the same recipe, pruned as
the classifier is, from the first step on. Losses are divided by the counts of the whole batch, or
with `optim.accumulate` of each part, where the official code takes the mean over its GPUs of two
images each.
"""

import dataclasses

from ssmjax.dense.ranges import DensePruneConfig
from train.config import Config, ModelConfig, OptimConfig
from train.data.dense_config import DetectionData, SegmentationData


def mask_rcnn(trunk: str, prune: DensePruneConfig | None) -> Config:
    """Mask R-CNN, 1x: 12 epochs of all images, 8 x 2 of them, a tenth of 1e-4 after 8 and 11."""
    return _detector(f"maskrcnn_{trunk}", prune, keep_empty=True, clip=None)


def retinanet(trunk: str, prune: DensePruneConfig | None) -> Config:
    """RetinaNet, 1x: as Mask R-CNN, of the images with objects, gradients up to 35."""
    return _detector(f"retinanet_{trunk}", prune, keep_empty=False, clip=35.0)


def _detector(
    name: str, prune: DensePruneConfig | None, *, keep_empty: bool, clip: float | None
) -> Config:
    return Config(
        model=_model(name, name.split("_", 1)[1]),
        data=DetectionData(keep_empty=keep_empty),
        optim=OptimConfig(
            lr=1e-4,
            schedule="step",
            drop_epochs=(8, 11),
            epochs=12,
            warmup_steps=500,
            warmup_lr=1e-4 * 0.001,
            batch_size=16,
            weight_decay=0.05,
            b2=0.999,
            clip=clip,
        ),
        prune=prune,
        eval_batch_size=8,
        checkpoint_every=1000,
        log_every=50,
    )


def upernet(trunk: str, prune: DensePruneConfig | None) -> Config:
    """UperNet: 160,000 steps of 8 x 2 images, 6e-5 falling to 0, weight decay 0.01."""
    optim = OptimConfig(lr=6e-5, steps=160_000, batch_size=16, weight_decay=0.01)
    return _segmentor(_model(f"upernet_{trunk}", trunk), SegmentationData(), optim, prune)


def upernet_vim(
    trunk: str,
    prune: DensePruneConfig | None,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float,
) -> Config:
    """UperNet on Vim: 60,000 steps of 4 x 8 images, a rate falling to 0, lower for lower blocks.

    The numbers are those of the official configs and, where these differ, of the scripts that start
    them; Vim's paper has others (160,000 steps of 16 images, 6e-5). Three things differ. Evaluation
    looks through windows of 512 x 512 pixels, as published, but at images whose sides are first
    rounded up to multiples of 32. Layer decay slows every block, where BEiT's rule, which the
    official code follows, goes by names that Vim's blocks do not have, unless it was adapted. And
    Vim-S has no rotary embeddings, which its official config turns on and its released classifier
    lacks.
    """
    optim = OptimConfig(
        lr=lr, steps=60_000, batch_size=32, weight_decay=weight_decay, layer_decay=layer_decay
    )
    data = SegmentationData(window=(512, 512), stride=(341, 341))
    return _segmentor(_model(f"upernet_{trunk}", f"{trunk}_patch16_224"), data, optim, prune)


def _segmentor(
    model: ModelConfig, data: SegmentationData, optim: OptimConfig, prune: DensePruneConfig | None
) -> Config:
    """With the schedule that both have."""
    return Config(
        model=model,
        data=data,
        optim=dataclasses.replace(
            optim,
            schedule="linear",
            min_lr=0.0,
            warmup_steps=1500,
            warmup_lr=optim.lr * 1e-6,
            b2=0.999,
            clip=None,
        ),
        prune=prune,
        eval_batch_size=8,
        evaluate_every=12,  # About 16,000 steps, as the official code.
        checkpoint_every=1000,
        log_every=50,
    )


def _model(name: str, classifier: str) -> ModelConfig:
    """What starts from a classifier, in float32 as published."""
    return ModelConfig(name, classifier=f"weights/{classifier}.safetensors")
