"""Which part of a photo is taken, and how it becomes the size that the model takes.

Every change of size is `ssmjax.photos.resize`. All photos are [H,W,3] uint8, all results
[height,width,3] uint8 and perhaps read-only.
"""

import math

import cv2
import numpy as np

from ssmjax.photos import Size, resize

MARGIN = 4  # Pixels by which `shift` may move a photo, to each side.

_ASPECTS = (math.log(3 / 4), math.log(4 / 3))  # Of a random part: width over height.


def shift(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The photo moved by up to `MARGIN` pixels along each axis; its border is mirrored."""
    height, width = photo.shape[:2]
    top, left = rng.integers(0, 2 * MARGIN, 2, endpoint=True)
    padded = cv2.copyMakeBorder(photo, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REFLECT_101)
    return padded[top : top + height, left : left + width]


def random_resized(
    photo: np.ndarray, size: Size, scale: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """A random part, resized: Szegedy et al., "Going deeper with convolutions", as timm has it.

    Its area is uniform between two shares of the photo's, `scale`; its aspect ratio is log-uniform
    from 3/4 to 4/3. Of ten such parts the first that fits into the photo is taken, at a uniform
    place; where none does, the largest middle part is.
    """
    top, left, height, width = random_part(photo.shape[:2], scale, rng)
    return resize(photo[top : top + height, left : left + width], size)


def random_part(
    shape: Size, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width, in pixels, of the part that `random_resized` takes."""
    H, W = shape
    for _ in range(10):
        area = H * W * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*_ASPECTS))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= H and 0 < width <= W:
            top, left = rng.integers(0, [H - height, W - width], endpoint=True)
            return int(top), int(left), height, width
    narrowest, widest = (math.exp(aspect) for aspect in _ASPECTS)
    height, width = min(H, round(W / narrowest)), min(W, round(H * widest))
    return (H - height) // 2, (W - width) // 2, height, width
