"""ImageNet-1k as the official models were trained on it: its classes, and how they take images."""

import functools
from collections.abc import Sequence
from importlib import resources

from ssmjax.preprocess import IMAGENET, PLAIN, Preprocessing


def preprocessing(model: str) -> Preprocessing:
    """How the official weights of a registered model take images."""
    return PLAIN if model.startswith("vit_") else IMAGENET


@functools.cache
def synsets() -> dict[str, str]:
    """{WordNet id: name} of the 1,000 classes, in the order of the models' outputs."""
    table = resources.files("ssmjax").joinpath("imagenet_classes.tsv").read_text("utf-8")
    return dict(line.split("\t") for line in table.splitlines())


def readable(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names with WordNet ids, such as data sets have them, put into words."""
    return tuple(synsets().get(name, name) for name in class_names)
