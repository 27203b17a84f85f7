"""What data sets of detection and segmentation share: files of images and labels."""

import hashlib
import importlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from train.data.decode import decode
from train.data.fetch import DataError


def pycocotools(module: str) -> Any:
    """A module of pycocotools, such as "mask".

    Raises:
      DataError: the package is not installed.
    """
    try:
        return importlib.import_module(f"pycocotools.{module}")
    except ModuleNotFoundError as error:
        raise DataError(
            "COCO needs the package pycocotools, which is not installed: pip install pycocotools."
        ) from error


def read_image(path: Path) -> np.ndarray:
    """An image file's pixels, [H,W,3] uint8, RGB.

    Raises:
      DataError: the file is missing or no readable image.
    """
    try:
        image = decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"The image {path} cannot be read: {error.strerror}.") from error
    if image is None:
        raise DataError(f"The image {path} is not a readable JPEG or PNG; copy it again.")
    return image


def read_labels(path: Path) -> np.ndarray:
    """A label image's numbers, [H,W] of an integer dtype; of a palette image, the indices.

    Raises:
      DataError: the file is missing, unreadable, or has more than one channel.
    """
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)
    # Pillow's readers raise all of these for broken files.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"The label image {path} cannot be read: {error}.") from error
    if labels.ndim != 2:
        raise DataError(
            f"The label image {path} has {labels.shape[2]} channels; it must have one, whose "
            "values are class numbers."
        )
    return labels.astype(np.int32)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header.

    Raises:
      DataError: the file is missing or no readable image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"The image {path} cannot be read: {error}.") from error


def check_present(paths: Sequence[Path], title: str) -> None:
    """Refuse paths that are no files; folders are listed, which is faster than to ask for each.

    Raises:
      DataError: a file is missing.
    """
    there = {folder: _names(folder) for folder in {path.parent for path in paths}}
    missing = [path for path in paths if path.name not in there[path.parent]]
    if missing:
        raise DataError(
            f"{title} lacks {len(missing):,} of its {len(paths):,} files, such as {missing[0]}: "
            "unpack it again, or give the folder that holds them."
        )


def identity_of(files: Iterable[Path], *others: object) -> str:
    """What changes when files are added, left out or written anew, or the other things change."""
    found = [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    return hashlib.sha256(repr((found, others)).encode()).hexdigest()


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder) if entry.is_file()}
    except OSError:
        return set()
