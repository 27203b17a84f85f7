"""A folder of photos, `split/class/photo.jpg`, as a TFDS data set.

TFDS' own `ImageFolder` reads the single files at every epoch and needs TensorFlow. Here they go,
byte for byte, into a few array_record files once, in an order drawn once, so that a part of a
split, as "train[:90%]", has photos of all classes.

Each split is a data set of its own, named after its folder, the split and a fingerprint of the
list of its files: a changed folder is prepared anew, beside the old one, which may be deleted.
Others read it by the name that its folder under `data_dir` has:

    tfds.data_source("photo_folder/flowers-train-0123456789ab", split="train", data_dir=...)
"""

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
from tensorflow_datasets.core.dataset_builder import ShardBasedBuilder

from ssmjax.decode import SUFFIXES
from ssmjax.terminal import printable, track
from train.data.fetching.fetch import DataError
from train.data.fetching.prepare import prepared
from train.data.sources.classes import listed
from train.data.sources.walk import (
    Found,
    check_name,
    entries,
    files_of,
    is_folder,
    is_hidden,
    same_name,
)

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
        for key, number in enumerate(track(order, f"Preparing {len(order):,} photos")):
            photo = config.photos[number]
            # TFDS reads the file when it writes the example.
            path = config.folder / photo.name
            yield key, {"image": path, "label": photo.label, "file_name": photo.name}


def prepare(path: Path, split: str, data_dir: Path) -> tuple[Path, str]:
    """Prepare the photos in the folder `path/split` under `data_dir`, if they are not yet.

    `path/split` holds a folder per class, with photos at any depth.

    Returns:
        The folder of the prepared data set, and what was left out of it, as "5 .heic", or "".

    Raises:
        DataError: as `class_folders`; a class without photos; an unreadable file; the disk is
            full or not writable.
    """
    class_names, found = class_folders(path, split), files_of(path / split, SUFFIXES)
    photos = tuple(_photos(path / split, class_names, found))
    fingerprint = hashlib.sha256(json.dumps([class_names, photos]).encode()).hexdigest()[:12]
    title = re.sub(r"[^\w.-]+", "_", path.resolve().name)
    config = PhotoFolderConfig(
        name=f"{title}-{split}-{fingerprint}",
        folder=path / split,
        split=split,
        class_names=class_names,
        photos=photos,
    )
    builder = prepared(
        lambda: PhotoFolder(config=config, data_dir=data_dir, file_format="array_record"), data_dir
    )
    return Path(builder.data_path), found.remark()


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

    Accents are as in NFC, however the folders write them.

    Raises:
        DataError: there is no such folder, no folder per class in it, two of one name, or one
            whose name cannot be that of a class.
    """
    if not path.is_dir():
        raise DataError(
            f"data.path is {path}, which is not a folder; give one that holds a folder per split."
        )
    if not (path / split).is_dir():
        there = [printable(entry.name) for entry in _folders(path)]
        raise DataError(
            f'The folder {path} has no folder "{split}" for the split "{split}"; it has '
            f"{', '.join(there) or 'no folders'}."
        )
    loose = [e.name for e in entries(path / split) if _is_photo(e.name) and not is_folder(e)]
    if loose:
        raise DataError(
            f"The folder {path / split} holds photos itself, such as {loose[0]}; put each into "
            "the folder of its class."
        )
    names = [same_name(entry.name) for entry in _folders(path / split)]
    if not names:
        raise DataError(f"The folder {path / split} is empty; it needs a folder per class.")
    for name in names:
        check_name(name, path / split / name)
        if name != name.strip() or name != printable(name):
            raise DataError(
                f'The folder {path / split} has the class "{printable(name)}", whose name begins '
                "or ends with a space or has a control character; rename it."
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"The folder {path / split} has several folders of the class {listed(twice)}, which "
            "write its accents in different ways (NFC and NFD); put their photos into one."
        )
    return tuple(sorted(names))


def _folders(path: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in entries(path) if is_folder(entry) and not is_hidden(entry.name)]


def _is_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def _photos(folder: Path, class_names: tuple[str, ...], found: Found) -> list[Photo]:
    """The photos among what a split's folder holds, sorted by class and name."""
    labels = {name: label for label, name in enumerate(class_names)}
    photos = [
        Photo(file.name, labels[of], *file[1:])
        for file in found.files
        if (of := same_name(file.name.split("/")[0])) in labels
    ]
    photos.sort(key=lambda photo: photo.label)
    there = {photo.label for photo in photos}
    if empty := [name for label, name in enumerate(class_names) if label not in there]:
        folders = {same_name(entry.name): entry.name for entry in _folders(folder)}
        why = [
            f"; left out of {name}: {remark}"
            for name in empty[:10]
            if (remark := found.remark(f"{folders[name]}/"))
        ]
        raise DataError(
            f"The folder {folder} has no photos (.jpg, .png and others) of {listed(empty)}: add "
            f"some, or delete what is no class{''.join(why)}."
        )
    return photos
