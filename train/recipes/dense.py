"""How the official code trains detectors and segmentors, and what was chosen for pruned ones.

Weights are those of the ImageNet classifier, as the dense models start from them, converted as
train/recipes/classification.py says; the paper does not say what its pruned ones start from, nor
where they prune. Chosen: the same recipe, pruned as the classifier is, from the first step on. All
compute in float32, as published. EXIF orientation is applied, as mmcv does. The memory of every
config is in train/README.md, by `python -m train.memory_table`.
"""

import dataclasses

from ssmjax.dense.backbones.ranges import DensePruneConfig
from train.config import Config, ModelConfig, OptimConfig
from train.data.dense.config import DetectionData, SegmentationData

LARGE = ("plainmamba_l2", "plainmamba_l3")  # Their detectors recompute.


def mask_rcnn(trunk: str, prune: DensePruneConfig | None) -> Config:
    """Mask R-CNN, 1x: 12 epochs of all images, 8 x 2 of them, a tenth of 1e-4 after 8 and 11.

    Training differs from the official code's in how images meet. All 16 of a step have one
    orientation and are padded to 800 x 1344 or its transpose, so that two shapes are compiled; the
    official code has one orientation for the two images of a GPU, and pads them to the larger. So
    position embeddings here span 84 columns where they span 68 there for an image of 1067 x 800;
    evaluation pads each image to its own multiples of 32, as that code does. Losses are divided by
    the counts of all 16 images, where the official code takes the mean over its GPUs.

    L2 and L3 recompute the insides of blocks in the backward pass (`optim.remat`), which the
    official code does not: without, a step is estimated at 62 and 98 GiB on each of 8 GPUs
    when dense; with it, at 18 and 21.
    """
    return _detector("maskrcnn", trunk, prune, keep_empty=True, clip=None)


def retinanet(trunk: str, prune: DensePruneConfig | None) -> Config:
    """RetinaNet, 1x: 12 epochs as of `mask_rcnn`, of the images with objects, gradients up to 35.

    What L2 and L3 recompute makes 60 and 96 GiB, dense, into 16 and 18.
    """
    return _detector("retinanet", trunk, prune, keep_empty=False, clip=35.0)


def _detector(
    kind: str, trunk: str, prune: DensePruneConfig | None, *, keep_empty: bool, clip: float | None
) -> Config:
    return Config(
        model=_model(f"{kind}_{trunk}", trunk),
        data=DetectionData(keep_empty=keep_empty),
        optim=OptimConfig(
            lr=1e-4,
            schedule="step",
            drop_epochs=(8, 11),
            epochs=12,
            warmup_steps=500,
            warmup_lr=1e-4 * 0.001,
            batch_size=8 * 2,
            weight_decay=0.05,
            b2=0.999,
            clip=clip,
            remat=trunk in LARGE,
        ),
        prune=prune,
        eval_batch_size=8,
        checkpoint_every=1000,
        log_every=50,
    )


def upernet(trunk: str, prune: DensePruneConfig | None) -> Config:
    """UperNet: 160,000 steps of 8 x 2 images, 6e-5 falling to 0, weight decay 0.01.

    Evaluated every 6 epochs, which are 7,584 steps; the official code does so every 8,000.
    """
    optim = OptimConfig(lr=6e-5, steps=160_000, batch_size=8 * 2, weight_decay=0.01)
    model = _model(f"upernet_{trunk}", trunk)
    return _segmentor(model, SegmentationData(), optim, prune, evaluate_every=6)


def upernet_vim(
    trunk: str,
    prune: DensePruneConfig | None,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float,
) -> Config:
    """UperNet on Vim: 60,000 steps of 4 x 8 images, a rate falling to 0, lower for the embedding.

    The numbers are those of the official configs and, where these differ, of the scripts that start
    them; Vim's paper has others (160,000 steps of 16 images, 6e-5). Layer decay acts as in the
    released code: on the embedding alone, by `layer_decay` ** 25, since its rule, BEiT's, looks for
    blocks under a name that Vim's do not have. `--optim.layer-decay-blocks` slows the blocks too,
    as the rule means to.

    Three things differ. Evaluation looks through windows of 512 x 512 pixels, as published, but at
    images whose sides are first rounded up to multiples of 32. It comes every 2 epochs, which are
    1,264 steps, and officially every 1,000. And Vim-S has no rotary embeddings, which its official
    config turns on and its released classifier lacks.
    """
    optim = OptimConfig(
        lr=lr,
        steps=60_000,
        batch_size=4 * 8,
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        layer_decay_blocks=False,
    )
    data = SegmentationData(window=(512, 512), stride=(341, 341))
    model = _model(f"upernet_{trunk}", f"{trunk}_patch16_224")
    return _segmentor(model, data, optim, prune, evaluate_every=2)


def _segmentor(
    model: ModelConfig,
    data: SegmentationData,
    optim: OptimConfig,
    prune: DensePruneConfig | None,
    *,
    evaluate_every: int,
) -> Config:
    """A run with the schedule that UperNets on both backbones have."""
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
        evaluate_every=evaluate_every,
        checkpoint_every=1000,
        log_every=50,
    )


def _model(name: str, classifier: str) -> ModelConfig:
    """What starts from a classifier, in float32 as published."""
    return ModelConfig(name, classifier=f"weights/{classifier}.safetensors")
