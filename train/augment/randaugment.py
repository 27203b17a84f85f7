"""RandAugment (Cubuk et al., arXiv 1909.13719) with the operations and magnitudes of timm.

Of timm's two sets of operations this is the one whose every operation grows stronger with the
magnitude ("inc1"); Pillow carries them out. As in timm's recipes with a bicubic crop, DeiT's and
Vim's among them, what is rotated, sheared or moved is interpolated bicubically.
"""

import dataclasses
import re

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, int, int]

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)

_STRONGEST = 10.0  # The magnitude that uses an operation's range up.
_PARTS = {"m": "magnitude", "n": "count", "p": "probability", "mstd": "deviation", "inc": ""}
_RANGES = {"m": (0, _STRONGEST), "n": (1, 15), "p": (0, 1), "mstd": (0, 100), "inc": (1, 1)}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Random operations, one after the other.

    Attributes:
      magnitude: how strong they are, from 0 to 10.
      count: how many are drawn, each one from all of them.
      probability: that a drawn operation is carried out.
      deviation: standard deviation of the magnitude, which is drawn anew for each operation.
    """

    magnitude: float = _STRONGEST
    count: int = 2
    probability: float = 0.5
    deviation: float = 0.0

    def __call__(self, image: Image.Image, fill: Colour, rng: np.random.Generator) -> Image.Image:
        """The image, operated on.

        Args:
          image: of mode RGB.
          fill: RGB of the places that an operation leaves empty.
          rng: drives all choices.
        """
        for name in rng.choice(OPERATIONS, self.count):
            if rng.random() < self.probability:
                magnitude = rng.normal(self.magnitude, self.deviation)
                level = min(max(magnitude, 0.0), _STRONGEST) / _STRONGEST
                image = operate(name, image, level, rng.choice((-1, 1)), fill)
        return image


def parse(text: str) -> RandAugment:
    """RandAugment as timm's configs write it, such as "rand-m9-mstd0.5-inc1".

    Args:
      text: "rand", then in any order m (magnitude), n (count), p (probability), mstd (deviation),
        each with its number, and inc1, which is needed.

    Raises:
      ValueError: an unknown or repeated part, a number out of range, or no inc1.
    """
    rule = (
        'write "rand-m9-mstd0.5-inc1" or alike: "rand", m from 0 to 10, n (operations) from 1, p '
        "(probability) from 0 to 1, mstd (deviation of m) from 0, and inc1, joined by dashes"
    )
    kind, *parts = text.split("-")
    values: dict[str, float] = {}
    for part in parts:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        name, number = (found[1], float(found[2])) if found else (part, 0.0)
        low, high = _RANGES.get(name, (1, 0))
        if not found or name in values or not low <= number <= high:
            raise ValueError(f'RandAugment "{text}" has the part "{part}"; {rule}.')
        values[name] = number
    if kind != "rand" or values.pop("inc", None) is None:
        raise ValueError(
            f'RandAugment "{text}" lacks "{"rand" if kind != "rand" else "inc1"}"; {rule}.'
        )
    fields = {_PARTS[name]: number for name, number in values.items()}
    return RandAugment(**fields | {"count": int(values.get("n", 2))})


def operate(name: str, image: Image.Image, level: float, sign: int, fill: Colour) -> Image.Image:
    """One operation.

    Args:
      name: one of `OPERATIONS`.
      image: of mode RGB.
      level: how strong, from 0 to 1.
      sign: 1 or -1: to which side, for operations that have two.
      fill: RGB of the places that are left empty.
    """
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Rotate":  # By up to 30 degrees.
            return image.rotate(sign * level * 30, Image.Resampling.BICUBIC, fillcolor=fill)
        case "PosterizeIncreasing":  # From 4 bits a channel down to none.
            return ImageOps.posterize(image, 4 - int(level * 4))
        case "SolarizeIncreasing":
            return ImageOps.solarize(image, 256 - int(level * 256))
        case "SolarizeAdd":  # Brighten the darker half.
            add = int(level * 110)
            return image.point([min(255, v + add) if v < 128 else v for v in range(256)] * 3)
        case "ColorIncreasing":
            return ImageEnhance.Color(image).enhance(_factor(level, sign))
        case "ContrastIncreasing":
            return ImageEnhance.Contrast(image).enhance(_factor(level, sign))
        case "BrightnessIncreasing":
            return ImageEnhance.Brightness(image).enhance(_factor(level, sign))
        case "SharpnessIncreasing":
            return ImageEnhance.Sharpness(image).enhance(_factor(level, sign))
        case "ShearX":
            return _affine(image, (1, sign * level * 0.3, 0, 0, 1, 0), fill)
        case "ShearY":
            return _affine(image, (1, 0, 0, sign * level * 0.3, 1, 0), fill)
        case "TranslateXRel":  # By up to 0.45 of the width.
            return _affine(image, (1, 0, sign * level * 0.45 * image.width, 0, 1, 0), fill)
        case "TranslateYRel":
            return _affine(image, (1, 0, 0, 0, 1, sign * level * 0.45 * image.height), fill)
    raise ValueError(f"There is no operation {name}; those are {', '.join(OPERATIONS)}.")


def _factor(level: float, sign: int) -> float:
    """Of Pillow's enhancements: 1 changes nothing."""
    return max(0.1, 1 + sign * level * 0.9)


def _affine(image: Image.Image, coefficients: tuple[float, ...], fill: Colour) -> Image.Image:
    """Pixel (x, y) is taken from (a x + b y + c, d x + e y + f) of the image."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BICUBIC,
        fillcolor=fill,
    )
