"""Settings of augmentation."""

import dataclasses
from typing import Literal

from train.augment import randaugment
from train.hosts.fields import AT_LEAST_0, AT_LEAST_1, SHARE, check


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to a photo in training, in timm's terms and order; the defaults leave it as is.

    Attributes:
      crop: `resize` takes the whole photo; `shift` moves it by up to 4 pixels, the border mirrored;
        `random_resized` takes a random part, resized (bicubic).
      scale: smallest and largest share of the photo's area in a random part.
      flip: probability of a flip from left to right.
      randaugment: RandAugment as timm writes it, such as "rand-m9-mstd0.5-inc1"; None without.
      color_jitter: largest relative change of brightness, contrast and saturation.
      erase: probability that a random rectangle becomes noise.
      mixup: alpha of the beta distribution of mixup; 0 without.
      cutmix: as `mixup`, of cutmix; with both, each batch gets one of them, by a fair coin.
      repeats: times that each photo of an epoch is in it, augmented anew (repeated augmentation);
        the epoch has as many images, of fewer photos.
    """

    crop: Literal["resize", "shift", "random_resized"] = "resize"
    scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.0
    randaugment: str | None = None
    color_jitter: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"data.augment.scale is {self.scale}; give two shares above 0 and at most 1, the "
                "smaller one first."
            )
        check(self, "data.augment.", SHARE, "flip", "color_jitter", "erase")
        check(self, "data.augment.", AT_LEAST_0, "mixup", "cutmix")
        check(self, "data.augment.", AT_LEAST_1, "repeats")
        if self.randaugment is not None:
            randaugment.parse(self.randaugment)
