"""Image files, as commands read them for models and write them for people.

Images are [H,W,3] uint8, sizes are (height, width) in pixels.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from ssmjax.atomic import replacing
from ssmjax.decode import decode
from ssmjax.models.config import BackboneConfig
from ssmjax.preprocess import Preprocessing

Size = tuple[int, int]


def read_image(path: Path, size: Size, crop_pct: float = 1.0) -> np.ndarray:
    """The `middle` of the image in a file; raises ValueError as `read_photo` does."""
    return middle(read_photo(path), size, crop_pct)


def read_photo(path: Path) -> np.ndarray:
    """The image in a file of any format that `ssmjax.decode` reads, by its rule.

    Raises:
      ValueError: there is no such file, or it is not a whole, readable image.
    """
    if not path.is_file():
        raise ValueError(f"There is no image file {path}; check the path.")
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ValueError(f"The image file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}); give a sound JPEG, PNG, WebP, TIFF, BMP "
            "or GIF of 8 or 16 bits."
        ) from error


def middle(image: np.ndarray, size: Size, crop_pct: float) -> np.ndarray:
    """The middle of an image, as in evaluation.

    The image is resized in proportion until it just covers `size` / `crop_pct`, rounded down; the
    middle of that is taken. For square sizes, pixel by pixel what timm does.

    Args:
      image: of any size.
      size: of the result.
      crop_pct: share of the shorter side that is taken, above 0 to 1.
    """
    H, W = image.shape[:2]
    height, width = (math.floor(side / crop_pct) for side in size)
    wide = H * width < W * height  # Then the height decides, else the width.
    whole = (height, height * W // H) if wide else (width * H // W, width)
    top, left = (round((covered - side) / 2) for covered, side in zip(whole, size, strict=True))
    return resize(image, whole)[top : top + size[0], left : left + size[1]]


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """A whole image of another size, stretched where its shape is another one; perhaps read-only.

    By Pillow's bicubic interpolation, which averages where it shrinks (antialiasing), as in timm.
    """
    if image.shape[:2] == size:
        return image
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def fitting(height: int, width: int, scale: Size) -> Size:
    """The size that brings an image of height and width into `scale`, with the ratio kept.

    `scale` is the longest and the shortest side, in any order. Rounded as mmcv does, to at least 1.
    """
    long, short = max(scale), min(scale)
    factor = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def read_images(paths: Sequence[Path], config: BackboneConfig, crop_pct: float) -> np.ndarray:
    """[n,height,width,3] uint8, the `middle` of the images in files, for a model of such a config.

    Raises:
      ValueError: no path, one that cannot be read (see `read_photo`), or a model of other images.
    """
    if not paths:
        raise ValueError("No image was given; name one or more image files.")
    height, width, channels = config.image_shape
    if channels != 3:
        raise ValueError(f"The model takes {channels} channels; photos have 3.")
    return np.stack([read_image(path, (height, width), crop_pct) for path in paths])


def in_batches(
    function: Callable[[np.ndarray], Any],
    images: np.ndarray,
    preprocessing: Preprocessing,
    batch: int,
) -> Any:
    """What a function makes of many images, computed `batch` of them at once.

    Args:
      function: from [b,height,width,3] float32, normalised, to arrays [b,...] in any pytree.
      images: [n,height,width,3] uint8.
      preprocessing: of the model, to normalise them.
      batch: the largest b.

    Returns:
      The pytree with numpy arrays [n,...].
    """
    results = []
    for start in range(0, len(images), batch):
        normalised = preprocessing.normalise(images[start : start + batch])
        results.append(jax.tree.map(np.asarray, function(normalised)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def write_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all. Raises OSError with a sentence for people."""
    try:
        with replacing(path) as file:
            picture.save(file, format="PNG")
    except OSError as error:
        raise OSError(f"The picture {path} cannot be written: {error.strerror}.") from error
