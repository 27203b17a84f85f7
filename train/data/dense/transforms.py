"""Image transforms of detection and segmentation, on the host.

They are those of mmdetection 2.25 and mmsegmentation 0.23 on mmcv 1.7; images are uint8 RGB, which
is the same as their BGR, since no step tells channels apart but the hue, and OpenCV knows both.
Random ones draw from a numpy generator, see `row_rng`.
"""

from collections.abc import Callable

import cv2
import numpy as np

IGNORED = 255  # The label of pixels that no class is given.
MULTIPLE = 32  # What sides of padded images are multiples of.

# How far a class may fill a random crop, and how often another crop is drawn instead.
_LARGEST_SHARE, _REDRAWS = 0.75, 10
_BRIGHTNESS = 32
_CONTRAST = _SATURATION = (0.5, 1.5)
_HUE = 18  # Of 180.


def row_rng(seed: int, number: int, row: int) -> np.random.Generator:
    """The generator of one image: that of row `row` in the training batch `number`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, number, row)))


def padded(height: int, width: int) -> tuple[int, int]:
    """(height, width) up to multiples of 32."""
    return -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H,W,3] uint8 to (height, width), bilinear in OpenCV's fixed-point arithmetic."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H,W] uint8, labels or a mask, to (height, width), nearest."""
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


def scale_factor(before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
    """What boxes are multiplied by when an image is resized: [4] float32, (x, y, x, y)."""
    y, x = after[0] / before[0], after[1] / before[1]
    return np.array([x, y, x, y], np.float32)


def resize_boxes(boxes: np.ndarray, factor: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[G,4] float32, multiplied and clipped to (height, width)."""
    return np.clip(boxes * factor, 0, np.array([size[1], size[0]] * 2, np.float32))


def flip(image: np.ndarray) -> np.ndarray:
    """[H,W,3] or [H,W] uint8, mirrored left to right; a copy, which is faster to work on."""
    return cv2.flip(image, 1)


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """[G,4] float32 of an image flipped left to right."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([np.float32(width) - x2, y1, np.float32(width) - x1, y2], axis=-1)


def random_scale(scale: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """`scale` times a random ratio of 0.5 to 2, rounded down."""
    ratio = rng.uniform(0.5, 2.0)
    return int(scale[0] * ratio), int(scale[1] * ratio)


def random_crop(
    labels: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[slice, slice]:
    """Rows and columns of a random part of an image; all of a side that is shorter than `size`.

    It is drawn again, up to ten times, until no class covers 75 % of the labelled pixels, of
    labels [H,W] uint8.
    """
    for _ in range(_REDRAWS):
        part = _any_crop(labels, size, rng)
        counts = np.bincount(labels[part].ravel(), minlength=IGNORED + 1)[:IGNORED]
        if counts.max() < _LARGEST_SHARE * counts.sum():
            return part
    return _any_crop(labels, size, rng)


def _any_crop(
    labels: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[slice, slice]:
    starts = [rng.integers(max(n - s, 0) + 1) for n, s in zip(labels.shape, size, strict=True)]
    rows, columns = (slice(start, start + s) for start, s in zip(starts, size, strict=True))
    return rows, columns


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photometric distortion: brightness, contrast, saturation and hue, each with probability 1/2.

    Contrast comes before saturation and hue or after them, with probability 1/2. The image is RGB.
    """
    if rng.integers(2):
        image = _linear(image, 1.0, rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))
    contrast_first = rng.integers(2)
    if contrast_first:
        image = _contrast(image, rng)
    if rng.integers(2):
        image = _in_hsv(image, 1, lambda s: _linear(s, rng.uniform(*_SATURATION), 0.0))
    if rng.integers(2):
        shift = rng.integers(-_HUE, _HUE)
        image = _in_hsv(image, 0, lambda hue: ((hue.astype(int) + shift) % 180).astype(np.uint8))
    return image if contrast_first else _contrast(image, rng)


def _contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _linear(image, rng.uniform(*_CONTRAST), 0.0) if rng.integers(2) else image


def _linear(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """uint8 values times a factor plus an offset, in float32, clipped and rounded down."""
    table = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return np.clip(table, 0, 255).astype(np.uint8)[values]


def _in_hsv(
    image: np.ndarray, channel: int, change: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """An RGB image with one channel of its HSV form changed; hue goes from 0 to 179."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = change(hsv[..., channel])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
