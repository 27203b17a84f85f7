"""`Preprocessing`: how a model takes images."""

import dataclasses
from typing import Any

import numpy as np

Channels = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a model takes images: part of what its weights were trained with.

    Attributes:
      mean: per channel, red, green and blue, of images on a scale of 0 to 1.
      std: standard deviation per channel, as `mean`.
      crop_pct: share of the shorter side that the middle square of a classifier's evaluation takes.
    """

    mean: Channels
    std: Channels
    crop_pct: float = 1.0

    def normalise(self, images: Any) -> Any:
        """Images [...,3] of 0 to 255 to float32 of about zero mean and unit deviation.

        Arrays of numpy stay such; those of JAX may be traced.
        """
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (images.astype(np.float32) / 255 - mean) / std


PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # From -1 to 1.
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224 / 256)
