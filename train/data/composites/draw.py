"""One composite: where each photo is pasted, in which shape, and what of it stays visible."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 128  # Of a composite, in pixels: a multiple of 32, as detectors need.

_OBJECTS = (2, 6)  # Least and most that are tried.
_SIZES = (20.0, 96.0)  # Of what is pasted, in pixels: 0.6 to 3 times a photo of CIFAR-10.
_ASPECTS = (0.75, 4 / 3)
_VISIBLE = 0.4  # Of each object, at least.


class Pasted(NamedTuple):
    """An object in a composite.

    Attributes:
      label: its class.
      mask: [SIDE,SIDE] bool, the pixels where it is seen.
    """

    label: int
    mask: np.ndarray


def composite(
    photos: Sequence[tuple[np.ndarray, int]], background: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[Pasted]]:
    """Paste photos onto a background, the later ones on top.

    A photo that would leave less than 40 % of an earlier one visible is not pasted, so that nothing
    is seen that is no object.

    Args:
      photos: [32,32,3] uint8 with their classes; at least one is pasted.
      background: [SIDE,SIDE,3] uint8.
      rng: of size, shape and place.

    Returns:
      The composite, [SIDE,SIDE,3] uint8, and its objects, the lowest first.
    """
    image = background.copy()
    objects: list[Pasted] = []
    areas: list[int] = []
    for photo, label in photos:
        height, width = _size(rng)
        y, x = rng.integers(SIDE - height + 1), rng.integers(SIDE - width + 1)
        place = slice(y, y + height), slice(x, x + width)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[place] = _shape(height, width, rng)
        seen = [np.count_nonzero(below.mask & ~mask) for below in objects]
        if any(rest < _VISIBLE * area for rest, area in zip(seen, areas, strict=True)):
            continue
        resized = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
        image[place][mask[place]] = resized[mask[place]]
        objects = [below._replace(mask=below.mask & ~mask) for below in objects]
        objects.append(Pasted(label, mask))
        areas.append(int(np.count_nonzero(mask)))
    return image, objects


def number_of_objects(rng: np.random.Generator) -> int:
    """How many photos to give to `composite`."""
    return int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))


def part_of(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photo [H,W,3] uint8, of SIDE pixels up to all it has, as a background.

    Returns: [SIDE,SIDE,3] uint8; half of them mirrored.
    """
    side = int(rng.integers(SIDE, min(photo.shape[:2]) + 1))
    y, x = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    part = photo[y : y + side, x : x + side]
    part = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.flip(part, 1) if rng.random() < 0.5 else part


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width; small ones are as frequent as large ones."""
    size = np.exp(rng.uniform(*np.log(_SIZES)))
    stretch = np.sqrt(np.exp(rng.uniform(*np.log(_ASPECTS))))
    low, high = (int(limit) for limit in _SIZES)
    height, width = (int(np.clip(round(s), low, high)) for s in (size * stretch, size / stretch))
    return height, width


def _shape(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """[height,width] bool: an ellipse, a rectangle with round corners or a polygon."""
    kind = rng.integers(3)
    # Pixel centres, from -1 to 1.
    y = (2 * np.arange(height)[:, None] + 1) / height - 1
    x = (2 * np.arange(width)[None, :] + 1) / width - 1
    if kind == 0:
        return x**2 + y**2 <= 1
    if kind == 1:
        return x**4 + y**4 <= 1
    corners = int(rng.integers(5, 9))
    turns = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners + rng.random()
    radii = rng.uniform(0.75, 1.0, corners)
    points = radii[:, None] * np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], 1)
    pixels = np.round((points + 1) / 2 * (width - 1, height - 1)).astype(np.int32)
    return cv2.fillPoly(np.zeros((height, width), np.uint8), [pixels], 1).astype(bool)
