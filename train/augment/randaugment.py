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
_RANGES = {"m": (0, _STRONGEST), "n": (1, 15), "p": (0, 1), "mstd": (0, 100), "inc": (1, 1)}
_RULE = (
    'write it like "rand-m9-mstd0.5-inc1": rand, m (magnitude) from 0 to 10, inc1 and, where '
    "wanted, n (operations, else 2) from 1 to 15, p (probability, else 0.5) from 0 to 1, mstd "
    "(deviation of m, else 0) from 0 to 100, joined by dashes"
)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Random operations, one after the other.

    Attributes:
      magnitude: how strong they are, from 0 to 10.
      count: how many are drawn, each one from all of them.
      probability: that a drawn operation is carried out.
      deviation: standard deviation of the magnitude, which is drawn anew for each operation.
    """

    magnitude: float
    count: int
    probability: float
    deviation: float

    def __call__(self, image: Image.Image, fill: Colour, rng: np.random.Generator) -> Image.Image:
        """The image, of mode RGB, operated on; `fill` is what places get that are left empty."""
        for name in rng.choice(OPERATIONS, self.count):
            if rng.random() < self.probability:
                magnitude = rng.normal(self.magnitude, self.deviation)
                level = min(max(magnitude, 0.0), _STRONGEST) / _STRONGEST
                image = operate(name, image, level, rng.choice((-1, 1)), fill)
        return image


def parse(text: str) -> RandAugment:
    """RandAugment as timm's configs write it, such as "rand-m9-mstd0.5-inc1".

    Args:
      text: "rand", then in any order m (magnitude), inc1 and perhaps n (count, else 2), p
        (probability, else 0.5) and mstd (deviation, else 0), each with its number.

    Raises:
      ValueError: an unknown or repeated part, a number out of range, or no m or inc1.
    """
    kind, *parts = text.split("-")
    values: dict[str, float] = {}
    for part in parts:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        name, number = (found[1], float(found[2])) if found else ("", 0.0)
        low, high = _RANGES.get(name, (1, 0))
        whole = name != "n" or number.is_integer()
        if name in values or not (low <= number <= high and whole):
            raise ValueError(f'RandAugment "{text}" cannot have the part "{part}"; {_RULE}.')
        values[name] = number
    if kind != "rand" or not {"m", "inc"} <= values.keys():
        raise ValueError(f'RandAugment "{text}" is incomplete; {_RULE}.')
    return RandAugment(
        magnitude=values["m"],
        count=int(values.get("n", 2)),
        probability=values.get("p", 0.5),
        deviation=values.get("mstd", 0.0),
    )


def operate(name: str, image: Image.Image, level: float, sign: int, fill: Colour) -> Image.Image:
    """One of `OPERATIONS` on an image of mode RGB.

    Args:
      name: of the operation.
      image: to work on.
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
            # Pillow's own refuses to keep none, which makes a photo black.
            mask = 256 - 2 ** (4 + int(level * 4))
            return image.point([value & mask for value in range(256)] * 3)
        case "SolarizeIncreasing":
            return ImageOps.solarize(image, 256 - int(level * 256))
        case "SolarizeAdd":  # Brighten the darker half.
            add = int(level * 110)
            return image.point([v + add if v < 128 else v for v in range(256)] * 3)
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
