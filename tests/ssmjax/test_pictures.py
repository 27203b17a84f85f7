"""Pictures of kept tokens: which pixels are greyed, and that the rest stay as they are."""

import chex
import numpy as np
import pytest
from PIL import Image

from ssmjax.analysis.pictures import TILE, cell_pixels, kept_cells, kept_tokens_picture
from ssmjax.models.plain_mamba import PlainMambaConfig
from ssmjax.models.vim import VimConfig
from ssmjax.pruning import PruneConfig


def config(**kwargs):
    """A 4 x 4 grid of 8-pixel patches; the class token is position 8 of 17."""
    prune = PruneConfig((2, 3), 0.5)
    return VimConfig(**{"depth": 4, "patch_size": 8, "img_size": 32, "prune": prune, **kwargs})


def stages(n=1):
    """Kept: patches 0, 1, 7, 8, 9, 10, 14, 15 after block 2; then 0, 7, 8, 15."""
    first, second = [0, 1, 7, 8, 9, 10, 11, 15, 16], [0, 7, 8, 9, 16]
    return [np.tile(first, (n, 1)), np.tile(second, (n, 1))]


def kept_pixels(positions, config):
    return cell_pixels(kept_cells(positions, config), config)


def tiles(picture, background=255):
    """(left, top, right, bottom) of the tiles: runs of pixels that are not all background."""
    marked = (np.asarray(picture) != background).any(axis=2)

    def runs(line, at_least):
        edges = np.flatnonzero(np.diff(np.r_[False, line, False]))
        spans = zip(edges[::2], edges[1::2], strict=True)
        return [(a, b) for a, b in spans if b - a >= at_least]

    rows = runs(marked.any(axis=1), 60)
    return [
        (a, top, b, bottom)
        for top, bottom in rows
        for a, b in runs(marked[(top + bottom) // 2], 60)
    ]


def test_positions_around_the_class_token():
    pixels = kept_pixels(stages()[0][0], config())
    chex.assert_shape(pixels, (32, 32))
    kept = {int(4 * row + column) for row, column in np.argwhere(pixels[4::8, 4::8])}
    assert kept == {0, 1, 7, 8, 9, 10, 14, 15}
    assert pixels.sum() == 8 * 8 * 8


def test_class_token_alone_keeps_no_patch():
    assert not kept_pixels(np.array([8]), config()).any()


def test_without_a_class_token_every_position_is_a_patch():
    # 28 pixels: the last row and column of patches reach beyond the image.
    sizes = {"depth": 4, "patch_size": 8, "img_size": 28, "prune": PruneConfig((2,), 0.5)}
    pixels = kept_pixels(np.array([0, 8, 15]), PlainMambaConfig(**sizes))
    assert {int(4 * y + x) for y, x in np.argwhere(pixels[2::8, 2::8])} == {0, 8, 15}
    assert pixels.sum() == 64 + 64 + 16


def test_overlapping_patches_stand_for_the_cells_in_their_middle():
    # 7 x 7 patches of 8 pixels, 4 apart; the class token is 24. Positions 6, 48 and 49 are
    # patches 6 (end of the first row), 47 and 48 (end of the last).
    overlapping = config(stride=4)
    pixels = kept_pixels(np.array([6, 24, 48, 49]), overlapping)
    expected = np.zeros((32, 32), bool)
    expected[0:6, 26:32] = True  # Cells begin 2 pixels in; the border goes with the nearest.
    expected[26:32, 22:32] = True
    chex.assert_trees_all_equal(pixels, expected)


def test_kept_pixels_stay_and_pruned_ones_lose_their_colour():
    photo = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    picture = kept_tokens_picture(photo, stages(), config())
    found = tiles(picture)
    assert len(found) == 3  # The photo and two stages.
    untouched, *pruned = (np.asarray(picture.crop(box)) for box in found)
    chex.assert_shape(untouched, (160, 160, 3))
    enlarged = Image.fromarray(photo[0]).resize((160, 160), Image.Resampling.BICUBIC)
    chex.assert_trees_all_equal(untouched, np.asarray(enlarged))
    for tile, stage in zip(pruned, stages(), strict=True):
        kept = kept_pixels(stage[0], config()).repeat(5, 0).repeat(5, 1)
        chex.assert_trees_all_equal(tile[kept], untouched[kept])
        grey = tile[~kept].astype(int)
        assert (grey.max(axis=1) - grey.min(axis=1)).max() == 0
        assert grey.min() >= 150 and grey.max() <= 215  # Pale, and visible beside white.


def test_many_photos_stand_in_two_columns_in_reading_order():
    photos = np.stack([np.full((32, 32, 3), 20 * i, np.uint8) for i in range(5)])
    picture = kept_tokens_picture(photos, stages(5), config(), [f"photo {i}" for i in range(5)])
    found = tiles(picture)
    assert len(found) == 5 * 3
    shades = {picture.getpixel((left + 2, top + 2)) for left, top, _, _ in found}
    assert shades == {(20 * i,) * 3 for i in range(5)}
    lefts = sorted({left for left, *_ in found})
    # Down the first column, then down the second.
    shade = np.asarray(picture)[..., 0]
    first = [shade[y + 2, x + 2] for x, y, *_ in found if x == lefts[0]]
    second = [shade[y + 2, x + 2] for x, y, *_ in found if x == lefts[3]]
    assert (first, second) == ([0, 20, 40], [60, 80])


@pytest.mark.parametrize("size", [(24, 48), (224, 224), (400, 320)])
def test_any_size_keeps_its_shape(size):
    photo = np.zeros((1, *size, 3), np.uint8)
    pruned = config(img_size=size, prune=PruneConfig((1,), 0.5))
    kept = [np.arange(pruned.image_tokens[1] + 1)[None]]
    left, top, right, bottom = tiles(kept_tokens_picture(photo, kept, pruned))[0]
    scale = (bottom - top) / size[0]
    assert scale == (right - left) / size[1] == max(1, round(TILE / max(size)))


def test_captions_of_any_length_stay_inside():
    photo = np.zeros((1, 32, 32, 3), np.uint8)
    short = kept_tokens_picture(photo, stages(), config(), ["cat"])
    long = kept_tokens_picture(photo, stages(), config(), ["a very long name of a class " * 20])
    assert short.size == long.size
    pixels = np.asarray(long)
    assert (pixels[:, -20:] == 255).all()
    assert (pixels != np.asarray(short)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((1, 32, 32, 3), np.float32)}, r"images is float32 .* must be uint8"),
        ({"images": np.zeros((1, 16, 16, 3), np.uint8)}, r"must be uint8 \[n, 32, 32, 3\]"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8)}, "must be uint8"),
        ({"stages": stages()[:1]}, "There are 1 stages"),
        ({"config": config(prune=None), "stages": []}, "at least one"),
        ({"stages": stages(2)}, "There are 1 photos"),
        ({"captions": ["one", "two"]}, "There are 1 photos"),
    ],
)
def test_errors(change, message):
    good = {"images": np.zeros((1, 32, 32, 3), np.uint8), "stages": stages(), "config": config()}
    with pytest.raises(ValueError, match=message):
        kept_tokens_picture(**{**good, **change})
