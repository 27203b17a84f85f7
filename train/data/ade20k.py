"""Segmentation data: folders of images and of label images; ADE20K as it is published."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssmjax.dense.class_names import ADE20K
from train.data.classes import check_known
from train.data.dense_files import identity_of, read_image, read_labels
from train.data.dense_transforms import IGNORED
from train.data.fetch import DataError
from train.data.turned import check_not_turned

_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Images, and for each a label image of its size.

    Attributes:
      pairs: paths of each image and its label image, by name.
      class_names: in the order of the labels.
      zero_is_none: the label images' 0 is no class, and class c is c + 1; otherwise class c is c.
      title: what messages call it.
    """

    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...]
    zero_is_none: bool
    title: str

    @property
    def identity(self) -> str:
        """See `train.tasks.task.Split`."""
        files = (path for pair in self.pairs for path in pair)
        return identity_of(files, self.class_names, self.zero_is_none)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image [H,W,3] uint8, RGB, and its labels [H,W] uint8, 255 where there is none.

        Raises:
          DataError: a file is missing or unreadable, the two differ in size, or a label is not
            that of a class.
        """
        image_path, label_path = self.pairs[index]
        image, values = read_image(image_path), read_labels(label_path)
        if values.shape != image.shape[:2]:
            check_not_turned(image_path, image.shape[:2], values.shape)
            raise DataError(
                f"The label image {label_path} has {values.shape[0]} x {values.shape[1]} pixels, "
                f"its image {image.shape[0]} x {image.shape[1]}; they must be equal."
            )
        count, first = len(self.class_names), int(self.zero_is_none)
        none = (values == IGNORED) | (self.zero_is_none & (values == 0))
        wrong = values[~none & ((values < first) | (values >= first + count))]
        if wrong.size:
            highest = f"1 to {count}, or 0" if self.zero_is_none else f"0 to {count - 1}"
            raise DataError(
                f"The label image {label_path} has the value {wrong[0]}; the {count} classes are "
                f"{highest} or {IGNORED} where there is none."
            )
        return image, np.where(none, IGNORED, values - first).astype(np.uint8)


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
    pairs = _pairs(folder / "images" / split, folder / "annotations" / split, title)
    return PairSplit(pairs, ADE20K, True, title)


def open_pairs(
    images: Path, labels: Path, class_names: Sequence[str], classes: Sequence[str] = ()
) -> PairSplit:
    """A folder of images and one of label images of the same names, as PNG.

    Args:
      images: the images, JPEG or PNG.
      labels: one channel each; class c is c, and 255 is none.
      class_names: in the order of the labels, 255 at most.
      classes: names that the weights at hand know, in order; empty where they know none.

    Raises:
      DataError: a folder is missing or empty, an image has no label image or the reverse, two
        differ in their suffix alone, the classes differ or are too many.
    """
    title = str(images)
    if not 0 < len(class_names) <= IGNORED:
        raise DataError(f"{title} has {len(class_names)} classes; there can be 1 to {IGNORED}.")
    check_known(class_names, classes, title)
    return PairSplit(_pairs(images, labels, title), tuple(class_names), False, title)


def _pairs(images: Path, labels: Path, title: str) -> tuple[tuple[Path, Path], ...]:
    found, labelled = _files(images, _SUFFIXES), _files(labels, (".png",))
    for have, lack, what in ((found, labels, "label image"), (labelled, images, "image")):
        if alone := sorted(have.keys() - (labelled if have is found else found).keys()):
            raise DataError(
                f"{title}: {len(alone):,} of {len(have):,} files have no {what} in {lack}, such as "
                f"{have[alone[0]].name}; unpack the data set again."
            )
    return tuple((found[stem], labelled[stem]) for stem in sorted(found))


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """By their names without the suffix."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; give the data set's own folder.")
    files: dict[str, Path] = {}
    for path in folder.iterdir():
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in files:
            both = " and ".join(sorted((files[path.stem].name, path.name)))
            raise DataError(f"The folder {folder} has {both}; give each a name of its own.")
        files[path.stem] = path
    if not files:
        raise DataError(f"The folder {folder} has no files of {', '.join(suffixes)}.")
    return files
