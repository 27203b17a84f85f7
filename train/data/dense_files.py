"""What data sets of detection and segmentation share: files of images and labels."""

import importlib
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
