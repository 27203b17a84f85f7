"""What happens to one photo on the host, in timm's order: crop, flip, then its colours."""

import dataclasses

import numpy as np
from PIL import Image, ImageEnhance

from ssmjax.photos import Size, resize
from train.augment import crop
from train.augment.config import AugmentConfig
from train.augment.randaugment import Colour, RandAugment, parse


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The way of one photo.

    Attributes:
      augment: of which only what happens to a single photo counts here.
      size: height and width of the result, in pixels.
      randaugment: with it there is no colour jitter, as in timm.
      fill: RGB of the places that an operation of RandAugment leaves empty.
    """

    augment: AugmentConfig
    size: Size
    randaugment: RandAugment | None
    fill: Colour

    def __call__(self, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height,width,3] uint8 from the photo [H,W,3] uint8; `rng` drives all choices."""
        augment = self.augment
        if augment.crop == "random_resized":
            photo = crop.random_resized(photo, self.size, augment.scale, rng)
        else:
            photo = resize(photo, self.size)
            if augment.crop == "shift":
                photo = crop.shift(photo, rng)
        if rng.random() < augment.flip:
            photo = photo[:, ::-1]
        if self.randaugment is not None:
            return np.asarray(self.randaugment(Image.fromarray(photo), self.fill, rng))
        if augment.color_jitter:
            return np.asarray(color_jitter(Image.fromarray(photo), augment.color_jitter, rng))
        return photo


def make_recipe(augment: AugmentConfig, size: Size, mean: tuple[float, float, float]) -> Recipe:
    """The recipe of a config; what is left empty gets the photos' mean colour, 0 to 1, as in timm.

    Raises:
      ValueError: `augment.randaugment` is not as `train.augment.randaugment.parse` wants it.
    """
    randaugment = None if augment.randaugment is None else parse(augment.randaugment)
    red, green, blue = (round(255 * share) for share in mean)
    return Recipe(augment, size, randaugment, (red, green, blue))


def color_jitter(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation changed, in random order, as torchvision's ColorJitter.

    The image is of mode RGB; each factor is uniform from 1 - strength to 1 + strength.
    """
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in rng.permutation(len(changes)):
        image = changes[which](image).enhance(rng.uniform(1 - strength, 1 + strength))
    return image
