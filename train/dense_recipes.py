"""How the official code trains detectors and segmentors, and what was chosen for pruned ones.

Weights are those of the ImageNet classifier, as the dense models start from them; the paper does
not say what its pruned ones start from, nor where they prune. Chosen: the same recipe, pruned as
the classifier is, from the first step on. Losses are divided by the counts of the whole batch, or
with `optim.accumulate` of each part, where the official code takes the mean over its GPUs of two
images each.
"""

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
        model=_model(name),
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
    return Config(
        model=_model(f"upernet_{trunk}"),
        data=SegmentationData(),
        optim=OptimConfig(
            lr=6e-5,
            schedule="linear",
            min_lr=0.0,
            steps=160_000,
            warmup_steps=1500,
            warmup_lr=6e-5 * 1e-6,
            batch_size=16,
            weight_decay=0.01,
            b2=0.999,
            clip=None,
        ),
        prune=prune,
        eval_batch_size=8,
        checkpoint_every=1000,
        log_every=50,
    )


def _model(name: str) -> ModelConfig:
    """What starts from the classifier of the same trunk, in float32 as published."""
    return ModelConfig(name, classifier=f"weights/{name.split('_', 1)[1]}.safetensors")
