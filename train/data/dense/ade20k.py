"""Segmentation data: folders of images and of label images; ADE20K as it is published."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssmjax.class_names import ADE20K
from ssmjax.decode import SUFFIXES
from train.data.dense import turned
from train.data.dense.files import identity_of, read_image
from train.data.dense.label_images import read_classes, survey
from train.data.dense.transforms import IGNORED
from train.data.fetching.fetch import DataError
from train.data.sources.classes import check_known
from train.data.sources.walk import files_of, same_name

_LABEL_SUFFIXES = (".png",)  # Others lose values, or hide them behind a palette.


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Images, and for each a label image of its size.

    Attributes:
      pairs: paths of each image and its label image, by name.
      class_names: in the order of the labels.
      zero_is_none: the label images' 0 is no class, and class c is c + 1; otherwise class c is c.
      title: what messages call it.
      remarks: sentences on classes that never occur and files that were left out, for people.
    """

    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...]
    zero_is_none: bool
    title: str
    remarks: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """See `train.engine.task.Split`."""
        files = (path for pair in self.pairs for path in pair)
        return identity_of(files, self.class_names, self.zero_is_none)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image [H,W,3] uint8, RGB, and its labels [H,W] uint8, 255 where there is none.

        Raises:
          DataError: a file is missing or unreadable, the two differ in size, or a label is not
            that of a class.
        """
        image_path, label_path = self.pairs[index]
        image = read_image(image_path)
        labels = read_classes(label_path, len(self.class_names), self.zero_is_none)
        if labels.shape != image.shape[:2]:
            turned.check_not_turned(image_path, image.shape[:2], labels.shape)
            raise DataError(
                f"The label image {label_path} has {labels.shape[0]} x {labels.shape[1]} pixels, "
                f"its image {image.shape[0]} x {image.shape[1]}; they must be equal."
            )
        return image, labels


def open_ade20k(folder: Path, split: str, classes: Sequence[str] = ()) -> PairSplit:
    """A split of ADEChallengeData2016, the 150 classes of SceneParsing, as its archive unpacks.

    Args:
      folder: holds `images/training`, `images/validation` and the same in `annotations`.
      split: "training" or "validation".
      classes: names that the weights at hand know, in order; empty where they know none.

    Raises:
      DataError: as `open_pairs`, and the classes differ.
    """
    title = f"ADE20K {split}"
    check_known(ADE20K, classes, title)
    return _split(folder / "images" / split, folder / "annotations" / split, ADE20K, True, title)


def open_pairs(
    images: Path, labels: Path, class_names: Sequence[str], classes: Sequence[str] = ()
) -> PairSplit:
    """A folder of images and one of label images of the same names, as PNG, at any depth.

    The pixels of all label images are counted: see `train.data.dense.label_images`.

    Args:
      images: the images, of any kind that `ssmjax.decode` reads.
      labels: one channel each; class c is c, and 255 is none.
      class_names: in the order of the labels, 255 at most.
      classes: names that the weights at hand know, in order; empty where they know none.

    Raises:
      DataError: a folder is missing or empty, an image has no label image or the reverse, two
        differ in their suffix alone, the classes differ or are too many, or one of several has all
        pixels.
    """
    title = str(images)
    if not 0 < len(class_names) <= IGNORED:
        raise DataError(f"{title} has {len(class_names)} classes; there can be 1 to {IGNORED}.")
    check_known(class_names, classes, title)
    return _split(images, labels, tuple(class_names), False, title)


class _Files(NamedTuple):
    """Files of a folder by their names without suffix, their sizes and times, what else it has."""

    folder: Path
    paths: dict[str, Path]
    changed: tuple[tuple[int, int], ...]
    left_out: str


def _split(
    images: Path, labels: Path, class_names: tuple[str, ...], zero_is_none: bool, title: str
) -> PairSplit:
    """The pairs of two folders, their label images counted."""
    image_files, label_files = _files(images, SUFFIXES), _files(labels, _LABEL_SUFFIXES)
    for have, lack, what in (
        (image_files, label_files, "label image"),
        (label_files, image_files, "image"),
    ):
        if alone := sorted(have.paths.keys() - lack.paths.keys()):
            left_out = f" (left out there: {lack.left_out})" if lack.left_out else ""
            raise DataError(
                f"{title}: {len(alone):,} of {len(have.paths):,} files have no {what} in "
                f"{lack.folder}, such as {have.paths[alone[0]].name}; unpack the data set again"
                f"{left_out}."
            )
    names = sorted(image_files.paths)
    label_paths = tuple(label_files.paths[name] for name in names)
    counted = survey(label_paths, label_files.changed, class_names, zero_is_none, title)
    counted.check()
    remarks = [
        f"{title}: left out {files.left_out} in {files.folder}."
        for files in (image_files, label_files)
        if files.left_out
    ]
    image_paths = tuple(image_files.paths[name] for name in names)
    remarks += [*counted.remarks(), *turned.remarks(image_paths, title, "label images")]
    pairs = tuple(zip(image_paths, label_paths, strict=True))
    return PairSplit(pairs, class_names, zero_is_none, title, tuple(remarks))


def _files(folder: Path, suffixes: Sequence[str]) -> _Files:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; give the data set's own folder.")
    paths: dict[str, Path] = {}
    found = files_of(folder, suffixes)
    for file in found.files:
        path = folder / file.name
        name = same_name(str(Path(file.name).with_suffix("")))
        if name in paths:
            both = " and ".join(sorted((paths[name].name, path.name)))
            raise DataError(f"The folder {folder} has {both}; give each a name of its own.")
        paths[name] = path
    left_out = found.remark()
    if not paths:
        kinds = ", ".join(suffixes) if len(suffixes) == 1 else ".jpg, .png and others"
        there = f"; left out there: {left_out}" if left_out else ""
        raise DataError(f"The folder {folder} has no files of {kinds}{there}.")
    changed = tuple((file.size, file.changed) for file in found.files)
    return _Files(folder, paths, changed, left_out)
