"""Pictures of what detectors and segmentors find: boxes, masks and segments on images."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssmjax.analysis.pictures import GAP
from ssmjax.dense.heads.objects import Detections
from ssmjax.pruning.strategies.blind import GOLDEN_RATIO

SHOWN = 0.3  # Scores from which objects are drawn.
_COVER = 0.5  # How much of a mask's or segment's colour shows.
_WHITE = (255, 255, 255)


def with_objects(
    image: np.ndarray, found: Detections, class_names: Sequence[str], least: float = SHOWN
) -> Image.Image:
    """An image with boxes, classes and scores, and masks if there are any.

    Args:
      image: [H,W,3] uint8.
      found: on this image, without B; boxes in its pixels, masks [n,H,W] bool or None.
      class_names: in the order of the labels.
      least: score of what is drawn.
    """
    drawn = np.flatnonzero(np.asarray(found.valid) & (np.asarray(found.scores) >= least))
    pixels = image.astype(np.float32)
    if found.masks is not None:
        for i in drawn[::-1]:  # The best ones last, so on top.
            colour = np.array(_colour(int(found.labels[i])), np.float32)
            mask = np.asarray(found.masks[i])
            pixels[mask] = (1 - _COVER) * pixels[mask] + _COVER * colour
    picture = Image.fromarray(pixels.astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    for i in drawn[::-1]:
        left, top, right, bottom = (float(side) for side in found.boxes[i])
        label = int(found.labels[i])
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=_colour(label))
        caption = f"{class_names[label]} {100 * float(found.scores[i]):.0f}%"
        draw.rectangle(draw.textbbox((left, top), caption, font), fill=_colour(label))
        draw.text((left, top), caption, _WHITE, font)
    return picture


def with_segments(image: np.ndarray, classes: np.ndarray) -> Image.Image:
    """An image [H,W,3] uint8 in the colours of its pixels' classes [H,W], integers."""
    colours = np.array([_colour(label) for label in range(int(classes.max()) + 1)], np.float32)
    mixed = (1 - _COVER) * image + _COVER * colours[classes]
    return Image.fromarray(mixed.astype(np.uint8))


def legend(classes: np.ndarray, class_names: Sequence[str], width: int) -> Image.Image:
    """The names of the most frequent classes [H,W] in their colours, those that fit on one line."""
    font = ImageFont.load_default(size=11)
    picture = Image.new("RGB", (width, 16), "white")
    draw, left = ImageDraw.Draw(picture), 2
    counts = np.bincount(classes.ravel())
    for label in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]:
        name = str(class_names[label])
        right = left + round(font.getlength(name))
        if right > width:
            break
        draw.text((left, 1), name, _colour(int(label)), font)
        left = right + GAP
    return picture


def stacked(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of pictures of any sizes, on white."""
    heights = [max(picture.height for picture in row) for row in rows]
    width = max(sum(p.width for p in row) + GAP * (len(row) - 1) for row in rows)
    whole = Image.new("RGB", (width + 2 * GAP, sum(heights) + GAP * (len(rows) + 1)), "white")
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for picture in row:
            whole.paste(picture, (left, top))
            left += picture.width + GAP
        top += height + GAP
    return whole


def _colour(label: int) -> tuple[int, int, int]:
    """The colour of a class: classes next to each other in number are far apart in hue."""
    hue = (label * GOLDEN_RATIO) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
