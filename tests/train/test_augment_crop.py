"""Crops: pixel by pixel against Pillow, and distributions against their definition."""

import chex
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from ssmjax import photos
from train.augment import crop

BICUBIC = Image.Resampling.BICUBIC


def photo(height, width, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def parts(shape, scale, count=3000):
    rng = np.random.default_rng(0)
    return np.array([crop.random_part(shape, scale, rng) for _ in range(count)])


# What timm's Resize(floor(size / crop_pct)) and CenterCrop(size) do, worked out by hand:
# (height, width), size, crop_pct; the resized height and width; top and left of the crop.
MIDDLES = [
    ((50, 80), 24, 0.875, (27, 43), (2, 10)),  # 24 / 0.875 = 27.43; 27 * 80 / 50 = 43.2; 1.5 to 2.
    ((80, 50), 24, 0.875, (43, 27), (10, 2)),
    ((33, 33), 16, 1.0, (16, 16), (0, 0)),
    ((64, 90), 32, 0.9, (35, 49), (2, 8)),
    ((10, 13), 16, 0.9, (17, 22), (0, 3)),  # Enlarged.
    ((37, 300), 20, 0.95, (21, 170), (0, 75)),
]


@pytest.mark.parametrize(("shape", "size", "pct", "whole", "corner"), MIDDLES)
def test_middle_is_timms_resize_and_centre_crop(shape, size, pct, whole, corner):
    image = photo(*shape)
    top, left = corner
    resized = Image.fromarray(image).resize(whole[::-1], BICUBIC)
    expected = resized.crop((left, top, left + size, top + size))
    chex.assert_trees_all_equal(photos.middle(image, (size, size), pct), np.asarray(expected))


@pytest.mark.parametrize("seed", range(20))
def test_middle_of_any_shape_covers_the_size_in_proportion(seed):
    rng = np.random.default_rng(seed)
    H, W, height, width = (int(side) for side in rng.integers(8, 90, 4))
    across, down = np.meshgrid(np.linspace(0, 255, W), np.linspace(0, 255, H))
    ramps = np.stack([across, down, 0 * down], -1).round().astype(np.uint8)
    found = photos.middle(ramps, (height, width), float(rng.uniform(0.5, 1)))
    assert found.shape == (height, width, 3)
    # The middle of the result is the middle of the photo, to a pixel of the coarser of the two.
    centre = found[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1].mean((0, 1))
    assert abs(centre[0] - 127.5) < 2 * 255 / min(W, width)
    assert abs(centre[1] - 127.5) < 2 * 255 / min(H, height)


def test_resize_averages_where_it_shrinks():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(photos.resize(stripes, (16, 16))[:, 2:-2].astype(int)) <= 2


def test_resize_takes_the_whole_photo():
    image = photo(30, 50)
    expected = np.asarray(Image.fromarray(image).resize((20, 10), BICUBIC))
    chex.assert_trees_all_equal(photos.resize(image, (10, 20)), expected)


def test_shift_is_a_crop_of_the_mirrored_photo_and_every_one_is_as_likely():
    image = photo(12, 10)
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)], mode="reflect")
    places = {
        padded[top : top + 12, left : left + 10].tobytes(): 9 * top + left
        for top in range(9)
        for left in range(9)
    }
    rng = np.random.default_rng(0)
    counts = np.bincount([places[crop.shift(image, rng).tobytes()] for _ in range(8100)])
    assert len(counts) == 81 and stats.chisquare(counts).pvalue > 0.01


def test_random_parts_areas_are_uniform_and_aspects_log_uniform():
    # In a photo this large and with parts this small, the first draw always fits.
    _, _, height, width = parts((3000, 4000), (0.08, 0.5)).T
    area, aspect = height * width / 12e6, np.log(width / height)
    assert stats.kstest(area, stats.uniform(0.08, 0.42).cdf).pvalue > 0.01
    third = np.log(4 / 3)
    assert stats.kstest(aspect, stats.uniform(-third, 2 * third).cdf).pvalue > 0.01
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.06


def test_random_parts_lie_anywhere_in_the_photo():
    top, left, height, width = parts((300, 400), (0.08, 1.0)).T
    assert (top >= 0).all() and (top + height <= 300).all()
    assert (left >= 0).all() and (left + width <= 400).all()
    top, height = top[height < 200], height[height < 200]
    assert stats.kstest(top / (300 - height), "uniform").pvalue > 0.01
    assert (top == 0).any() and (top + height == 300).any()


@pytest.mark.parametrize(
    ("shape", "expected"), [((30, 300), (0, 130, 30, 40)), ((300, 30), (130, 0, 40, 30))]
)
def test_where_no_random_part_fits_it_is_the_largest_middle_one(shape, expected):
    assert (parts(shape, (0.9, 1.0), 20) == expected).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3)])
def test_random_parts_of_tiny_photos_have_pixels(shape):
    assert (parts(shape, (0.08, 1.0), 50)[:, 2:] >= 1).all()


def test_random_resized_resizes_its_part():
    image = photo(60, 80)
    found = crop.random_resized(image, (20, 24), (0.1, 0.6), np.random.default_rng(3))
    top, left, height, width = crop.random_part((60, 80), (0.1, 0.6), np.random.default_rng(3))
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    chex.assert_trees_all_equal(found, np.asarray(part.resize((24, 20), BICUBIC)))
