"""Pictures of attention maps: one row per photo, one tile per model."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ssmjax.analysis.pictures import cell_pixels, check_photos, enlarged, lay_out, without_pruned
from ssmjax.models.config import BackboneConfig

# From nothing to the most, in equal steps: darker to lighter, so that it reads without colour too.
COLOURS = ((20, 10, 60), (110, 25, 120), (200, 55, 80), (250, 140, 40), (255, 235, 120))
OPACITY = 0.65  # Of the colours over the photo.


@dataclasses.dataclass(frozen=True)
class Column:
    """The maps of one model.

    Attributes:
      title: over the tiles.
      maps: [n,H,W] non-negative.
      kept: [n,H,W] bool, the cells whose patches the model kept.
    """

    title: str
    maps: np.ndarray
    kept: np.ndarray


def attention_picture(
    images: np.ndarray,
    columns: Sequence[Column],
    config: BackboneConfig,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Draw each photo as it is, then its maps as colours over it, pruned patches greyed out.

    Colours go from 0 to the largest value that a tile shows, of each tile by itself.

    Args:
      images: [n,height,width,3] uint8, of the models' `img_size`.
      columns: the maps, from left to right.
      config: of one of the models; all share its grid.
      captions: one line under each photo's row, or None.

    Returns:
      An RGB picture on white.

    Raises:
      ValueError: images of another shape or type, or another number of maps or captions than
        photos.
    """
    check_photos(images, config)
    shape = (len(images), *config.grid)
    if any(array.shape != shape for column in columns for array in (column.maps, column.kept)):
        raise ValueError(f"Maps and kept cells must be [n,H,W] {shape}, as photos and grid are.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"There are {len(images)} photos; give each its caption.")
    rows = []
    for i, image in enumerate(images):
        photo = enlarged(image)
        heats = [_heat(photo, column.maps[i], column.kept[i], config) for column in columns]
        rows.append([photo, *heats])
    return lay_out(rows, ["photo", *(column.title for column in columns)], captions)


def _heat(
    photo: Image.Image, values: np.ndarray, kept: np.ndarray, config: BackboneConfig
) -> Image.Image:
    most = values[kept].max(initial=0)
    level = cell_pixels(values / (most if most > 0 else 1), config)
    steps = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(level, steps, channel) for channel in zip(*COLOURS, strict=True)]
    colours = Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))
    colours = colours.resize(photo.size, Image.Resampling.NEAREST)
    heat = Image.blend(photo.convert("L").convert("RGB"), colours, OPACITY)
    return without_pruned(heat, photo, kept, config)
