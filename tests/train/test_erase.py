"""Random erasing against timm's definition, written out in numpy."""

import math
from functools import partial

import chex
import jax
import numpy as np
import pytest
from scipy import stats

from train.augment.erase import draw_rectangles, erase

SIZE = (14, 40)  # So narrow that a try in three does not fit.
DRAWS = 3000


def timm_rectangle(rng):
    """(top, left, height, width) by trying one after the other; zeros where none fits."""
    height, width = SIZE
    for _ in range(10):
        area = rng.uniform(0.02, 1 / 3) * height * width
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            return (
                rng.integers(0, height - h, endpoint=True),
                rng.integers(0, width - w, endpoint=True),
                h,
                w,
            )
    return 0, 0, 0, 0


def boxes(masks):
    """(top, left, height, width) [B,4] of [B,height,width] rectangles."""
    rows, columns = masks.any(axis=2), masks.any(axis=1)
    sides = rows.sum(axis=1), columns.sum(axis=1)
    chex.assert_trees_all_equal(masks.sum(axis=(1, 2)), sides[0] * sides[1])
    return np.stack([rows.argmax(axis=1), columns.argmax(axis=1), *sides], axis=1)


def distance(a, b):
    """Largest distance of two samples' distribution functions."""
    statistic, _ = stats.ks_2samp(a, b)
    return float(statistic)


@pytest.fixture(scope="module")
def drawn():
    """Rectangles of many images."""
    masks = jax.jit(draw_rectangles, static_argnums=(1, 2))(jax.random.key(0), DRAWS, SIZE)
    return boxes(np.asarray(masks))


def test_the_first_try_that_fits_is_taken(drawn):
    area_key, aspect_key, place_key = jax.random.split(jax.random.key(0), 3)
    areas = np.asarray(jax.random.uniform(area_key, (DRAWS, 10), minval=0.02, maxval=1 / 3))
    low = math.log(0.3)
    aspects = np.exp(jax.random.uniform(aspect_key, (DRAWS, 10), minval=low, maxval=-low))
    passed_over = 0
    for got, area, aspect in zip(drawn, areas * SIZE[0] * SIZE[1], aspects, strict=True):
        tries = zip(np.sqrt(area * aspect), np.sqrt(area / aspect), strict=True)
        sides = [(round(float(h)), round(float(w))) for h, w in tries]
        fits = [h < SIZE[0] and w < SIZE[1] for h, w in sides]
        passed_over += fits.index(True) > 0
        assert tuple(got[2:]) == sides[fits.index(True)]
    assert passed_over > DRAWS / 10
    starts = jax.random.randint(place_key, (DRAWS, 2), 0, np.array(SIZE) - drawn[:, 2:] + 1)
    chex.assert_trees_all_equal(drawn[:, :2], starts)


def test_rectangles_have_timms_distribution(drawn):
    rng = np.random.default_rng(1)
    wanted = np.array([timm_rectangle(rng) for _ in range(DRAWS)])
    for column in range(4):
        assert distance(drawn[:, column], wanted[:, column]) < 0.035
    assert distance(*(b[:, 2] * b[:, 3] for b in (drawn, wanted))) < 0.035
    assert distance(*(b[:, 2] / b[:, 3] for b in (drawn, wanted))) < 0.035


def test_where_no_try_fits_nothing_is_erased():
    assert not draw_rectangles(jax.random.key(0), 50, (1, 1)).any()


def test_chosen_images_get_normal_noise_in_a_rectangle_and_stay_the_same_elsewhere():
    images = np.full((1000, *SIZE, 3), 100, np.float32)
    got = np.asarray(jax.jit(partial(erase, probability=0.25))(jax.random.key(0), images))
    changed = (got != 100).any(axis=-1)
    boxes(changed)
    erased = changed.any(axis=(1, 2))
    assert abs(erased.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)
    noise = got[changed]
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    # Another value per pixel and channel, also from image to image.
    assert len(np.unique(noise)) > 0.9 * noise.size
    assert abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.02
