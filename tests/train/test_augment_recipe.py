"""The order and rates of what happens to a photo, and colour jitter."""

import itertools

import chex
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from train.augment.recipe import color_jitter, make_recipe
from train.config import AugmentConfig

MEAN = (0.485, 0.456, 0.406)


def photo(height=12, width=16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def recipe(size=(12, 16), **augment):
    return make_recipe(AugmentConfig(**augment), size, MEAN)


def test_by_default_the_photo_stays_as_it_is():
    chex.assert_trees_all_equal(recipe()(photo(), np.random.default_rng(0)), photo())


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_rate_of_flips(rate):
    flip, rng = recipe(flip=rate), np.random.default_rng(0)
    flips = 0
    for _ in range(1000):
        found = flip(photo(), rng)
        flipped = np.array_equal(found, photo()[:, ::-1])
        assert flipped or np.array_equal(found, photo())
        flips += flipped
    assert stats.binomtest(flips, 1000, rate).pvalue > 0.01


@pytest.mark.parametrize("crop", ["resize", "shift", "random_resized"])
def test_results_have_the_size(crop):
    made = recipe((20, 24), crop=crop, flip=0.5, randaugment="rand-m9-inc1")
    found = made(photo(30, 50), np.random.default_rng(0))
    assert found.shape == (20, 24, 3) and found.dtype == np.uint8


def test_the_mean_fills_what_randaugment_leaves_empty():
    moved = recipe(randaugment="rand-m10-p1-n1-inc1")
    corners = set()
    for seed in range(40):
        found = moved(photo(), np.random.default_rng(seed))
        corners |= {tuple(found[y, x].tolist()) for y, x in itertools.product((0, -1), repeat=2)}
    assert (124, 116, 104) in corners


def test_color_jitter_is_off_with_randaugment():
    both = recipe(randaugment="rand-m9-inc1", color_jitter=0.4)
    alone = recipe(randaugment="rand-m9-inc1")
    for seed in range(5):
        found, expected = (r(photo(), np.random.default_rng(seed)) for r in (both, alone))
        chex.assert_trees_all_equal(found, expected)


def test_color_jitter_does_each_change_once_in_any_order(monkeypatch):
    done = []

    class Recorded:
        def __init__(self, image):
            self.image = image

        def enhance(self, factor):
            done.append((type(self).__name__, factor))
            return self.image

    for name in ("Brightness", "Contrast", "Color"):
        monkeypatch.setattr(ImageEnhance, name, type(name, (Recorded,), {}))
    rng = np.random.default_rng(0)
    for _ in range(600):
        color_jitter(Image.fromarray(photo()), 0.4, rng)
    names, factors = zip(*done, strict=True)
    orders = [names[start : start + 3] for start in range(0, len(names), 3)]
    assert all(len(set(order)) == 3 for order in orders)
    counts = [orders.count(order) for order in itertools.permutations(set(names))]
    assert stats.chisquare(counts).pvalue > 0.01
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 0.01


def test_of_color_jitter_only_the_brightness_shows_on_plain_grey():
    grey, rng = Image.new("RGB", (4, 4), (100, 100, 100)), np.random.default_rng(0)
    found = [np.asarray(color_jitter(grey, 0.4, rng)) for _ in range(400)]
    assert all(np.ptp(image) == 0 for image in found)
    values = [float(image[0, 0, 0]) for image in found]
    assert stats.kstest(values, stats.uniform(60, 80).cdf).pvalue > 0.01
