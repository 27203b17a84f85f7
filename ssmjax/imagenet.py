"""ImageNet-1k as the official models were trained on it: its classes, and how photos are given."""

import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple


class Photos(NamedTuple):
    """How photos are given to a model; the fields are those of `ssmjax.weights.Metadata`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float


def photos(model: str) -> Photos:
    """How the official weights of a registered model were evaluated."""
    if model.startswith("vit_"):
        return Photos((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1.0)
    return Photos((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224 / 256)


@functools.cache
def synsets() -> dict[str, str]:
    """{WordNet id: name} of the 1,000 classes, in the order of the models' outputs."""
    table = resources.files("ssmjax").joinpath("imagenet_classes.tsv").read_text("utf-8")
    return dict(line.split("\t") for line in table.splitlines())


def readable(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names with WordNet ids, such as data sets have them, put into words."""
    return tuple(synsets().get(name, name) for name in class_names)
