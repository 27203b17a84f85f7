"""What data sets of detection and segmentation share: files of images and labels."""

import hashlib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssmjax.decode import PNG_DEPTH, decode, open_image, orientation_of
from train.data.fetching.fetch import DataError


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
    """An image file's pixels, [H,W,3] uint8, RGB, upright; see `ssmjax.decode`.

    Raises:
      DataError: the file is missing or no readable image.
    """
    encoded = _content(path, "image")
    try:
        return decode(encoded)
    except ValueError as error:
        raise DataError(
            f"An image cannot be decoded ({error}): {path} is not a readable JPEG or PNG; copy it "
            "again."
        ) from error


def read_labels(path: Path) -> np.ndarray:
    """A label image's numbers as the file stores them, [H,W] int32; of a palette, the indices.

    It is a PNG of one channel, grey or palette, of 1, 2, 4, 8 or 16 bits.

    Raises:
      DataError: the file is missing, unreadable, no PNG, has more than one channel, or is turned
        by an EXIF orientation.
    """
    encoded = _content(path, "label image")
    image = _label_image(path, encoded)
    try:
        image.load()
    except Exception as error:  # As in `ssmjax.decode`.
        raise DataError(f"The label image {path} cannot be read: {error}.") from error
    if len(image.getbands()) != 1:
        raise DataError(
            f"The label image {path} has {len(image.getbands())} channels; it must have one, whose "
            "values are class numbers."
        )
    if (orientation := orientation_of(image)) != 1:
        raise DataError(
            f"The label image {path} has the EXIF orientation {orientation}; labels are taken as "
            "they are stored, so turn them as the image is seen and remove the orientation."
        )
    values = np.asarray(image).astype(np.int32)
    if image.mode == "L":  # Pillow scales 2 and 4 bits, so that the highest value is 255.
        values //= 255 // (2 ** encoded[PNG_DEPTH] - 1)
    return values


def label_size(path: Path) -> tuple[int, int]:
    """Height and width of a label image, from its header.

    Raises:
      DataError: the file is missing, unreadable or no PNG.
    """
    image = _label_image(path, _content(path, "label image"))
    return image.height, image.width


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The {what} {path} cannot be read: {error.strerror}.") from error


def _label_image(path: Path, encoded: bytes) -> Image.Image:
    try:
        image = open_image(encoded)
    except ValueError as error:
        raise DataError(f"The label image {path} cannot be read: {error}.") from error
    if image.format != "PNG":
        raise DataError(
            f"The label image {path} is a file of {image.format}; save labels as PNG, which keeps "
            "every number."
        )
    return image


def identity_of(files: Iterable[Path], *others: object) -> str:
    """What changes when files are added, left out or written anew, or the other things change."""
    found = [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    return hashlib.sha256(repr((found, others)).encode()).hexdigest()
