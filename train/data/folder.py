"""A folder of photos, `split/class/photo.jpg`, as a TFDS data set.

TFDS' own `ImageFolder` reads the single files at every epoch and needs TensorFlow. Here they go,
byte for byte, into a few array_record files once, in an order drawn once, so that a part of a
split, as "train[:90%]", has photos of all classes.

Each split is a data set of its own, named after its folder, the split and a fingerprint of the
list of its files: a changed folder is prepared anew, beside the old one, which may be deleted.
Others read it by the name that its folder under `data_dir` has:

    tfds.data_source("photo_folder/flowers-train-0123456789ab", split="train", data_dir=...)
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track
from tensorflow_datasets.core.dataset_builder import ShardBasedBuilder

from train.data.fetch import DataError
from train.data.prepare import prepared

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SHARD_BYTES = 256 << 20

_SPLIT = re.compile(r"([\w-]+)(\[[^\]]*\])?")


class Photo(NamedTuple):
    """A file of a photo: its path below the split's folder, its class, bytes, mtime in ns."""

    name: str
    label: int
    size: int
    changed: int


@dataclass(eq=False)
class PhotoFolderConfig(tfds.core.BuilderConfig):
    """Which photos: those below `folder`, under the name `split`."""

    folder: Path = Path()
    split: str = ""
    class_names: tuple[str, ...] = ()
    photos: tuple[Photo, ...] = field(default=(), repr=False)


# By shards, since TFDS' `GeneratorBasedBuilder` needs TensorFlow above 1 GB.
class PhotoFolder(ShardBasedBuilder):
    """Photos of classes in one split.

    Each example has `image`, the file's bytes (uint8 RGB when TFDS decodes it), `label`, the
    number of its class in alphabetical order, and `file_name`, its path below the split's folder.
    """

    VERSION = tfds.core.Version("1.0.0")

    builder_config: PhotoFolderConfig

    def _info(self) -> tfds.core.DatasetInfo:
        names = list(self.builder_config.class_names)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photos from a folder per class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.ClassLabel(names=names),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        config = self.builder_config
        count = len(config.photos)
        shards = min(1 + sum(photo.size for photo in config.photos) // SHARD_BYTES, count)
        examples = self._examples()
        # The last one takes the rest, so that the progress bar ends.
        sizes = [count // shards] * (shards - 1) + [None]
        return {config.split: [partial(itertools.islice, examples, size) for size in sizes]}

    def _examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        order = np.random.default_rng(0).permutation(len(config.photos)).tolist()
        title = f"Preparing {len(order):,} photos"
        for key, number in enumerate(track(order, title, console=Console(stderr=True))):
            photo = config.photos[number]
            # TFDS reads the file when it writes the example.
            path = config.folder / photo.name
            yield key, {"image": path, "label": photo.label, "file_name": photo.name}


def prepare(path: Path, split: str, data_dir: Path) -> PhotoFolder:
    """The builder of the photos in the folder `path/split`, prepared under `data_dir` if needed.

    Args:
        path: holds a folder per split, and in each a folder per class, with photos at any depth.
        split: name of the split and of its folder, such as "train".
        data_dir: the folder that holds TFDS data sets.

    Raises:
        DataError: as `class_folders`; a class without photos; an unreadable file; the disk is
            full or not writable.
    """
    class_names = class_folders(path, split)
    photos = tuple(_photos(path / split, class_names))
    fingerprint = hashlib.sha256(json.dumps([class_names, photos]).encode()).hexdigest()[:12]
    title = re.sub(r"[^\w.-]+", "_", path.resolve().name)
    config = PhotoFolderConfig(
        name=f"{title}-{split}-{fingerprint}",
        folder=path / split,
        split=split,
        class_names=class_names,
        photos=photos,
    )
    return prepared(
        lambda: PhotoFolder(config=config, data_dir=data_dir, file_format="array_record"), data_dir
    )


def split_folder(split: str) -> str:
    """The folder that a split such as "train[:90%]" is read from: "train".

    Raises:
        DataError: a split of several folders, or one that TFDS cannot read.
    """
    match = _SPLIT.fullmatch(split)
    if match is None:
        raise DataError(
            f'The split is "{split}"; with source folder it is the name of one folder, or a part '
            'of it, such as train or "train[:90%]".'
        )
    return match[1]


def class_folders(path: Path, split: str) -> tuple[str, ...]:
    """The class names of a split, which are those of the folders in `path/split`, sorted.

    Raises:
        DataError: there is no such folder, or no folder per class in it.
    """
    if not path.is_dir():
        raise DataError(
            f"data.path is {path}, which is not a folder; give one that holds a folder per split."
        )
    if not (path / split).is_dir():
        raise DataError(
            f'The folder {path} has no folder "{split}" for the split "{split}"; it has '
            f"{', '.join(_folders(path)) or 'no folders'}."
        )
    loose = [entry.name for entry in os.scandir(path / split) if _is_photo(entry.name)]
    if loose:
        raise DataError(
            f"The folder {path / split} holds photos itself, such as {min(loose)}; put each into "
            "the folder of its class."
        )
    names = _folders(path / split)
    if not names:
        raise DataError(f"The folder {path / split} is empty; it needs a folder per class.")
    return names


def _folders(path: Path) -> tuple[str, ...]:
    entries = os.scandir(path)
    return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))


def _is_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _photos(folder: Path, class_names: tuple[str, ...]) -> Iterator[Photo]:
    """All photos of a split, sorted by class and name."""
    empty = []
    for label, class_name in enumerate(class_names):
        walk = os.walk(folder / class_name, followlinks=True)
        files = [Path(root, name) for root, _, names in walk for name in names if _is_photo(name)]
        if not files:
            empty.append(class_name)
        for file in sorted(files):
            if not os.access(file, os.R_OK):
                raise DataError(f"The photo {file} cannot be read; repair or delete it.")
            status = file.stat()
            name = file.relative_to(folder).as_posix()
            yield Photo(name, label, status.st_size, status.st_mtime_ns)
    if empty:
        raise DataError(
            f"The folder {folder} has no photos ({', '.join(SUFFIXES)}) of {', '.join(empty)}: "
            "add some, or delete what is no class."
        )
