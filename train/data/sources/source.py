"""The photos of a run, whatever holds them: encoded images with labels, in random access."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.file_adapters import FileFormat

from train.data import cifar10
from train.data.config import DataConfig
from train.data.fetching.fetch import DataError, MissingDataError
from train.data.sources import folder
from train.data.sources.classes import check_known, listed
from train.data.sources.tfrecord import TFRecordDataSource
from train.data.sources.walk import check_name

# What data sets call the file that a photo came from.
_FILE_NAMES = ("file_name", "filename", "image/filename")


class Source(Protocol):
    """Examples that can be read in any order, as TFDS' data sources can.

    An example is a dict with at least `image`, the bytes of an image file, and `label`, int.
    """

    def __len__(self) -> int: ...

    def __getitems__(self, keys: Sequence[int], /) -> Sequence[dict[str, Any]]: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set.

    Attributes:
        source: its encoded examples.
        class_names: in the order of the labels.
        title: what messages call it, such as 'cifar10_photos, split "train"'.
        folder: where the data set is prepared; None for one that is in memory.
        remarks: sentences on files that were left out, for people.
    """

    source: Source
    class_names: tuple[str, ...]
    title: str
    folder: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """See `train.engine.task.Split`."""
        return f"{self.title}: {len(self.source)} examples in {self.folder}"

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels go from 0 to num_classes - 1."""
        return len(self.class_names)

    def photo_name(self, index: int) -> str:
        """The name of the file that a photo came from, where the set has it, or its number."""
        (example,) = self.source.__getitems__([index])
        names = [example[key] for key in _FILE_NAMES if key in example]
        if not names:
            return str(index)
        return names[0].decode() if isinstance(names[0], bytes) else str(names[0])


class MadeUp:
    """The random examples of `tfds.testing.mock_data`, their uint8 RGB images as PNG."""

    def __init__(self, source: Sequence[dict[str, Any]]) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        return [self._encoded(self.source[key]) for key in keys]

    def _encoded(self, example: dict[str, Any]) -> dict[str, Any]:
        png = cv2.imencode(".png", np.ascontiguousarray(example["image"][..., ::-1]))[1]
        return {**example, "image": png.tobytes(), "label": int(example["label"])}


def open_split(data: DataConfig, split: str, classes: tuple[str, ...] = ()) -> Split:
    """Open a split of a data set for reading, without TensorFlow.

    Source `tfds` reads data sets of images and labels that TFDS has prepared as array_record or
    tfrecord, and fetches and prepares "cifar10_photos". ImageNet-1k takes ILSVRC2012_img_train.tar
    and ILSVRC2012_img_val.tar from image-net.org, the extra `prepare`, and
    `tfds build imagenet2012 --file_format=array_record --manual_dir=<folder of both>`.
    Inside `tfds.testing.mock_data`, any data set that TFDS knows has random photos.

    Source `folder` prepares photos as `train.data.sources.folder` says.

    `classes` are names that the weights at hand know, in order; empty where they know none.

    Raises:
        DataError: the data set is not there, cannot be prepared or read, lacks this split, is not
            images with class labels, or has other classes.
    """
    data_dir, left_out = Path(data.data_dir), ""
    check_name(data.data_dir, data_dir)
    if data.path is not None:
        name, path = data.path, Path(data.path)
        # Before what may take hours.
        check_known(_folder_classes(data, path, split), classes, f'The data set "{name}"')
        place, left_out = folder.prepare(path, folder.split_folder(split), data_dir)
        # Opened by its files, since workers get a copy of it and should not get the list of photos.
        builder = read_only_builder.builder_from_directory(place)
    else:
        name, builder = data.name, _tfds_builder(data.name, data_dir)
    names = _check_features(builder, name)
    check_known(names, classes, f'The data set "{name}"')
    try:
        source, prepared_in = _examples(builder, split, name, data_dir)
    except RuntimeError as error:  # From the reader of array_record files.
        raise DataError(
            f'The data set "{name}" in {builder.data_path} is damaged ({error}); copy or prepare '
            "it again."
        ) from error
    title = f'{name}, split "{split}"'
    remarks = (f"{title}: left out {left_out}.",) if left_out else ()
    return Split(source, names, title, prepared_in, remarks)


def _folder_classes(data: DataConfig, path: Path, split: str) -> tuple[str, ...]:
    """The class names of a split in the folder `path`, which those of the other split must equal.

    The folder of the training split may be missing, where weights are evaluated.
    """
    own, train = folder.split_folder(split), folder.split_folder(data.train_split)
    names = folder.class_folders(path, own)
    for other in (train, folder.split_folder(data.eval_split)):
        if other == train and not (path / train).is_dir():
            continue
        if differing := sorted(set(names) ^ set(folder.class_folders(path, other))):
            raise DataError(
                f"The folders {path / own} and {path / other} have other classes: only one of "
                f"them has {listed(differing)}."
            )
    return names


def _tfds_builder(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    """The builder of a TFDS data set; it is not prepared if only TFDS' code knows it."""
    if name == cifar10.Cifar10Photos.name:
        return cifar10.prepare(data_dir)
    logging.set_verbosity(logging.ERROR)
    try:
        # By its module, where `mock_data` replaces it.
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        try:
            return tfds.builder(name, data_dir=data_dir)
        # Code of any of TFDS' data sets, which may also want TensorFlow or a config.
        except Exception as error:
            raise _not_prepared(name, data_dir) from error
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f'The data set "{name}" cannot be opened: {reason}') from error


def _not_prepared(name: str, data_dir: Path) -> MissingDataError:
    how = f"tfds build {name} --file_format=array_record --data_dir={data_dir}"
    if name.startswith("imagenet2012"):
        how += " --manual_dir=<folder of ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar>"
    return MissingDataError(
        f'There is no data set "{name}" in {data_dir}: prepare it there with `{how}` (which needs '
        'the extra "prepare"), or use "cifar10_photos", which is fetched when it is missing.'
    )


def _check_features(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, ...]:
    """The class names of a data set of images with class labels; anything else is a DataError."""
    kinds = _features(builder)
    image, label = kinds.get("image"), kinds.get("label")
    if not (isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)):
        raise DataError(
            f'The data set "{name}" has the features {", ".join(kinds) or "(none)"}; '
            "needed are an Image named image and a ClassLabel named label."
        )
    return tuple(label.names)


def _features(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def _examples(
    builder: tfds.core.DatasetBuilder, split: str, name: str, data_dir: Path
) -> tuple[Source, Path | None]:
    """The examples of a split, their images encoded, and the folder that holds them."""
    if builder.is_prepared():
        _check_split(builder, split, name)
    try:
        # TFDS' decorator hides the method's signature from type checkers.
        source: Any = builder.as_data_source(split)  # pyright: ignore
    except NotImplementedError as error:
        if not builder.is_prepared():
            raise _not_prepared(name, data_dir) from error
        stored = builder.info.file_format
        if stored is not FileFormat.TFRECORD:
            raise DataError(
                f'The data set "{name}" in {data_dir} is stored as '
                f"{stored.value if stored else None}, which cannot be read in any order: prepare "
                'it again with file_format="array_record".'
            ) from error
        source = TFRecordDataSource(builder.info, tfds.Split(split))
    # Set now and not above, where `mock_data` would encode images with TensorFlow.
    source.decoders = {
        key: tfds.decode.SkipDecoding()
        for key, kind in _features(builder).items()
        if isinstance(kind, tfds.features.Image)
    }
    if isinstance(source[0]["image"], np.ndarray):
        return MadeUp(source), None
    return source, Path(builder.data_path)


def _check_split(builder: tfds.core.DatasetBuilder, split: str, name: str) -> None:
    """Refuse a split that a prepared data set does not have, or one without photos."""
    splits = builder.info.splits
    try:
        count = splits[split].num_examples
    except (KeyError, ValueError) as error:
        there = (f"{key} ({each.num_examples:,} photos)" for key, each in splits.items())
        raise DataError(
            f'The data set "{name}" has no split "{split}"; it has {", ".join(there)}.'
        ) from error
    if not count:
        raise DataError(f'The data set "{name}" has no photos in the split "{split}".')
