"""Detectors and segmentors small enough for two CPU cores, on data that packages carry."""

import dataclasses
from collections.abc import Callable

from ssmjax.dense.backbones.ranges import DensePruneConfig
from train.compare.config import Comparison, Entry
from train.config import Config, ModelConfig, OptimConfig
from train.data.cifar10 import CLASS_NAMES
from train.data.composites.draw import SIDE
from train.data.dense.config import DetectionData, SegmentationData

_COMPOSITES = "data/composites"
_SQUARE = (SIDE, SIDE)
_TREES = (192, 192)

# After the first half of the blocks, a quarter of the tokens.
PRUNE = DensePruneConfig((2,), 0.25)

_TRUNK = {"depth": 4, "ends": (1, 2, 3, 4), "embed_dim": 64, "d_state": 4, "drop_path_rate": 0.0}


def compared(label: str, recipe: Callable[[DensePruneConfig | None], Config]) -> Comparison:
    """A recipe, which is one of those below, dense against pruned at equal cut, of two seeds."""
    dense = recipe(None)
    return Comparison(
        models={label: dense.model},
        entries=(
            Entry(label, "dense"),
            Entry(label, "pruned, aligned", PRUNE),
            Entry(label, "pruned, not aligned", dataclasses.replace(PRUNE, alignment="none")),
        ),
        measure=("accuracy",),
        seeds=(0, 1),
        data=dense.data,
        optim=dense.optim,
        eval_batch_size=dense.eval_batch_size,
        evaluate_every=dense.evaluate_every,
        checkpoint_every=dense.checkpoint_every,
    )


def mask_rcnn(prune: DensePruneConfig | None) -> Config:
    """Boxes and masks of composites."""
    data = _boxes(_COMPOSITES, "test", _SQUARE)
    model = ModelConfig(
        "maskrcnn_plainmamba_l1",
        **_TRUNK,
        img_size=SIDE,
        heads=2,
        prior_width=16,
        width=32,
        hidden=128,
        proposals=100,
        samples=64,
    )
    return _config(model, data, prune, steps=375)


def upernet(prune: DensePruneConfig | None) -> Config:
    """The class of each pixel of composites."""
    data = SegmentationData(
        path=_COMPOSITES,
        train_split="train",
        eval_split="test",
        class_names=(*CLASS_NAMES, "background"),
        scale=(192, 192),
        crop=_SQUARE,
    )
    model = ModelConfig(
        "upernet_plainmamba_l1", **_TRUNK, img_size=SIDE, width=64, auxiliary_width=32
    )
    return _config(model, data, prune, steps=1000)


def retinanet(prune: DensePruneConfig | None) -> Config:
    """Boxes of trees."""
    data = _boxes("data/trees", "eval", _TREES)
    model = ModelConfig(
        "retinanet_plainmamba_l1", **_TRUNK, img_size=_TREES[0], heads=2, prior_width=16, width=32
    )
    return _config(model, data, prune, steps=100)


def _boxes(path: str, eval_split: str, sides: tuple[int, int]) -> DetectionData:
    """Square images, as the commands of `train.data` make them."""
    return DetectionData(
        path=path,
        train_annotations="annotations/train.json",
        train_images="images/train",
        eval_annotations=f"annotations/{eval_split}.json",
        eval_images=f"images/{eval_split}",
        scale=sides,
        shapes=(sides,),
    )


def _config(
    model: ModelConfig,
    data: DetectionData | SegmentationData,
    prune: DensePruneConfig | None,
    *,
    steps: int,
) -> Config:
    return Config(
        model=model,
        data=data,
        optim=OptimConfig(
            lr=2e-3,
            steps=steps,
            warmup_steps=50,
            batch_size=8,
            weight_decay=0.05,
            b2=0.99,
            clip=10.0,
        ),
        prune=prune,
        eval_batch_size=10,
        evaluate_every=10,
        checkpoint_every=500,
        log_every=50,
    )
