"""A split of a prepared data set, open for reading in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files

from train.data import cifar10
from train.data.fetch import DataError


class Source(Protocol):
    """Examples that can be read in any order, as TFDS' data sources can.

    An example is a dict with at least `image`, the bytes of a PNG or JPEG, and `label`, int.
    """

    def __len__(self) -> int: ...

    def __getitems__(self, keys: Sequence[int], /) -> Sequence[dict[str, Any]]: ...


@dataclass(frozen=True)
class Split:
    """One split of a data set: its encoded examples and the names of its classes.

    Attributes:
      source: of the examples.
      class_names: in the order of the labels.
      title: for messages, as 'imagenet2012, split "train"'.
    """

    source: Source
    class_names: tuple[str, ...]
    title: str

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels go from 0 to num_classes - 1."""
        return len(self.class_names)

    def photo_name(self, index: int) -> str:
        """The file name of a photo where the set carries one, else its number."""
        (example,) = self.source.__getitems__([index])
        name = example.get("file_name", example.get("filename", f"number {index}"))
        return name.decode() if isinstance(name, bytes) else name


def open_split(name: str, split: str, data_dir: str, classes: tuple[str, ...] = ()) -> Split:
    """Open a split of a TFDS data set for reading.

    Args:
        name: "cifar10_photos", which is fetched and prepared when it is not in `data_dir`
            yet, or a data set of images with class labels that TFDS has already prepared
            there, such as "cifar10" or "imagenette/160px-v2:1.0.0".
        split: a split as TFDS writes it, such as "train", "test" or "train[:90%]".
        data_dir: the folder that holds TFDS data sets.
        classes: class names that the weights at hand know, in order; empty where they know none.

    Raises:
        DataError: the data set is not there or cannot be prepared, is stored in a format
            that has no random access, lacks this split, is not images with class labels, or
            has other classes.
    """
    folder = Path(data_dir).expanduser()
    if name == cifar10.Cifar10Photos.name:
        builder = cifar10.prepare(folder)
    else:
        try:
            builder = builder_from_files(name, data_dir=folder)
        except tfds.core.DatasetNotFoundError as error:
            raise DataError(
                f'There is no data set "{name}" in {folder}: prepare it there with TFDS '
                '(file_format="array_record"), or use "cifar10_photos", which is fetched '
                "when it is missing."
            ) from error
    features = builder.info.features
    kinds = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = kinds.get("image"), kinds.get("label")
    if not (isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)):
        raise DataError(
            f'The data set "{name}" has the features {", ".join(kinds) or "(none)"}; '
            "needed are an Image named image and a ClassLabel named label."
        )
    try:
        encoded = {"image": tfds.decode.SkipDecoding()}
        # TFDS' decorator hides the method's signature from type checkers.
        source: Any = builder.as_data_source(split, decoders=encoded)  # pyright: ignore
    except NotImplementedError as error:
        stored = builder.info.file_format
        raise DataError(
            f'The data set "{name}" in {folder} is stored as {stored.value if stored else None}, '
            'which has no random access: prepare it again with file_format="array_record".'
        ) from error
    except ValueError as error:
        raise DataError(
            f'The data set "{name}" has no split "{split}"; it has '
            f"{', '.join(builder.info.splits)}."
        ) from error
    names = tuple(label.names)
    if classes and classes != names:
        raise DataError(
            f'The data set "{name}" has the classes {_listed(names)}; the weights know '
            f"{_listed(classes)}: give weights for this data set."
        )
    return Split(source, names, f'{name}, split "{split}"')


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
