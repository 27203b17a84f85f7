"""Pictures of what a pruned model kept: one row per photo, one tile per pruning stage."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ssmjax.models.config import BackboneConfig

TILE = 160  # Pixels of the longer side of a photo, as near as whole enlargement comes.
GAP = 8  # Pixels between tiles.
ROWS_IN_ONE_COLUMN = 4  # More photos than this stand in two columns.

_MARGIN = 20
_TITLE_HEIGHT = 24
_CAPTION_HEIGHT = 20
_INK, _FAINT_INK = (32, 32, 32), (112, 112, 112)
_PRUNED_GREY, _GREY_SHARE = 200, 0.8  # What a pruned patch is mixed with, and how much of it.


def kept_tokens_picture(
    images: np.ndarray,
    stages: Sequence[np.ndarray],
    config: BackboneConfig,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Draw each photo as it is and, stage by stage, with the patches pruned so far greyed out.

    Where patches overlap (stride below patch_size), a token stands for the stride x stride cell in
    the middle of its patch.

    Args:
      images: [n,height,width,3] uint8, of the model's `img_size`.
      stages: per pruning stage [n,K_i] integers, the original positions kept, a class token's
        among them: what `model(images, return_positions=True)` returns second.
      config: of the model.
      captions: one line under each photo's row, or None.

    Returns:
      An RGB picture on white.

    Raises:
      ValueError: images of another shape or type, no stages, or another number of rows or captions
        than photos.
    """
    check_photos(images, config)
    if config.prune is None or len(stages) != len(config.prune.after_blocks):
        raise ValueError(
            f"There are {len(stages)} stages; the picture needs one array of positions per pruning "
            "stage of the config, and at least one."
        )
    if any(len(rows) != len(images) for rows in (*stages, captions or images)):
        raise ValueError(
            f"There are {len(images)} photos; give each its row in every stage, and its caption."
        )

    patches = config.grid[0] * config.grid[1]
    blocks_and_counts = zip(config.prune.after_blocks, config.image_tokens[1:], strict=True)
    titles = ["photo", *(f"after block {b}: {kept} of {patches}" for b, kept in blocks_and_counts)]
    rows = []
    for i, photo in enumerate(images):
        tile = enlarged(photo)
        rows.append([tile])
        for stage in stages:
            kept = kept_cells(np.asarray(stage[i]), config)
            rows[-1].append(without_pruned(tile, tile, kept, config))
    return lay_out(rows, titles, captions)


def check_photos(images: np.ndarray, config: BackboneConfig) -> None:
    """Raises ValueError unless images is uint8 [n,height,width,3] of the model's size, n >= 1."""
    height, width, _ = config.image_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, 3) or not len(images):
        raise ValueError(
            f"images is {images.dtype} {images.shape}; it must be uint8 [n, {height}, {width}, 3]."
        )


def kept_cells(positions: np.ndarray, config: BackboneConfig) -> np.ndarray:
    """[H,W] bool, the cells of the grid whose patches were kept.

    Args:
      positions: [K] original positions kept in one image; those of a class token and of fused
        tokens are passed over.
      config: of the model.
    """
    H, W = config.grid
    positions = positions[positions < config.length]
    if config.class_index is not None:
        positions = positions[positions != config.class_index]
        positions = positions - (positions > config.class_index)
    kept = np.zeros(H * W, bool)
    kept[positions] = True
    return kept.reshape(H, W)


def cell_pixels(cells: np.ndarray, config: BackboneConfig) -> np.ndarray:
    """Each pixel's cell: [H,W] to [height,width]. Pixels outside all cells go with the nearest."""
    (H, W), margin = config.grid, (config.patch_size - config.step) // 2
    height, width, _ = config.image_shape
    rows = np.clip((np.arange(height) - margin) // config.step, 0, H - 1)
    columns = np.clip((np.arange(width) - margin) // config.step, 0, W - 1)
    return cells[rows[:, None], columns]


def enlarged(photo: np.ndarray) -> Image.Image:
    """A photo [height,width,3] uint8 as a tile: a whole number of times its size."""
    scale = max(1, round(TILE / max(photo.shape[:2])))
    return ImageOps.scale(Image.fromarray(photo), scale, Image.Resampling.BICUBIC)


def without_pruned(
    tile: Image.Image, photo: Image.Image, kept: np.ndarray, config: BackboneConfig
) -> Image.Image:
    """A tile; where patches were pruned, [H,W] `kept` is false, the photo without colour, and pale.

    Both are as large as `enlarged` makes a photo.
    """
    paper = Image.new("RGB", photo.size, (_PRUNED_GREY,) * 3)
    grey = Image.blend(photo.convert("L").convert("RGB"), paper, _GREY_SHARE)
    mask = Image.fromarray(cell_pixels(kept, config))
    return Image.composite(tile, grey, mask.resize(photo.size, Image.Resampling.NEAREST))


def lay_out(
    rows: list[list[Image.Image]], titles: list[str], captions: Sequence[str] | None
) -> Image.Image:
    """A picture of rows of tiles under their titles, in two columns of rows when there are many.

    Args:
      rows: one tile per title, all of one size.
      titles: over the tiles.
      captions: one line under each row, cut where it is too long, or None.
    """
    width, height = rows[0][0].size
    font = ImageFont.load_default(size=12)
    columns = 2 if len(rows) > ROWS_IN_ONE_COLUMN else 1
    lines = -(-len(rows) // columns)
    line_height = height + GAP + (_CAPTION_HEIGHT if captions else 0)
    # A tile's place is as wide as the longest title, where that is wider than the tile.
    step = max(width, *(round(font.getlength(title)) for title in titles)) + GAP
    column_width = step * len(titles) - GAP
    size = (
        2 * _MARGIN + columns * column_width + (columns - 1) * 2 * _MARGIN,
        2 * _MARGIN + _TITLE_HEIGHT + lines * line_height - GAP,
    )
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for column in range(columns):
        left = _MARGIN + column * (column_width + 2 * _MARGIN)
        for i, title in enumerate(titles):
            draw.text((left + i * step, _MARGIN), title, _FAINT_INK, font)
        for line, tiles in enumerate(rows[column * lines : (column + 1) * lines]):
            top = _MARGIN + _TITLE_HEIGHT + line * line_height
            for i, tile in enumerate(tiles):
                picture.paste(tile, (left + i * step, top))
            if captions:
                caption = _shorten(captions[column * lines + line], column_width, font)
                draw.text((left, top + height + 3), caption, _INK, font)
    return picture


def _shorten(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
