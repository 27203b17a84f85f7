"""RandAugment: each operation against its definition, and how often and how strongly it comes."""

import collections

import chex
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from train.augment import randaugment
from train.augment.randaugment import OPERATIONS, operate, parse

FILL = (10, 120, 200)


def photo(height=24, width=30) -> Image.Image:
    """Smooth, without the darkest and lightest values."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return image.point([20 + value * 3 // 4 for value in range(256)] * 3)


def operated(name, level, sign=1) -> np.ndarray:
    return np.asarray(operate(name, photo(), level, sign, FILL))


def affine(*coefficients) -> np.ndarray:
    image = photo()
    return np.asarray(
        image.transform(
            image.size,
            Image.Transform.AFFINE,
            coefficients,
            Image.Resampling.BICUBIC,
            fillcolor=FILL,
        )
    )


def enhanced(enhancement, factor) -> np.ndarray:
    return np.asarray(enhancement(photo()).enhance(factor))


def test_invert():
    chex.assert_trees_all_equal(operated("Invert", 0.3), 255 - np.asarray(photo()))


def test_autocontrast_stretches_every_channel_to_the_full_range():
    values = np.asarray(photo(), np.float64)
    low, high = values.min((0, 1)), values.max((0, 1))
    assert (low > 0).all()
    expected = (values - low) * 255 / (high - low)
    chex.assert_trees_all_close(operated("AutoContrast", 0.3), expected, rtol=1e-7, atol=1)


def test_equalize():
    # Many pixels, each value equally often: nothing to do; and else, Pillow's.
    even = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(12).reshape(32, 32, 3))
    chex.assert_trees_all_close(
        np.asarray(operate("Equalize", even, 0.3, 1, FILL), np.int32),
        np.asarray(even),
        rtol=1e-7,
        atol=2,
    )
    chex.assert_trees_all_equal(operated("Equalize", 0.3), np.asarray(ImageOps.equalize(photo())))


@pytest.mark.parametrize(("level", "kept"), [(0.0, 4), (0.24, 4), (0.5, 2), (0.9, 1), (1.0, 0)])
def test_posterize_keeps_fewer_bits_the_stronger_it_is(level, kept):
    unit = 2 ** (8 - kept)
    expected = np.asarray(photo(), np.int32) // unit * unit
    chex.assert_trees_all_equal(operated("PosterizeIncreasing", level), expected)


@pytest.mark.parametrize(("level", "threshold"), [(0.0, 256), (0.5, 128), (0.9, 26), (1.0, 0)])
def test_solarize_inverts_what_is_not_below_a_threshold(level, threshold):
    values = np.asarray(photo())
    expected = np.where(values < threshold, values, 255 - values)
    chex.assert_trees_all_equal(operated("SolarizeIncreasing", level), expected)


@pytest.mark.parametrize(("level", "add"), [(0.0, 0), (0.5, 55), (0.9, 99), (1.0, 110)])
def test_solarize_add_brightens_the_darker_half(level, add):
    values = np.asarray(photo())
    expected = np.where(values < 128, values + add, values)
    chex.assert_trees_all_equal(operated("SolarizeAdd", level), expected)


@pytest.mark.parametrize(
    ("name", "enhancement"),
    [
        ("ColorIncreasing", ImageEnhance.Color),
        ("ContrastIncreasing", ImageEnhance.Contrast),
        ("BrightnessIncreasing", ImageEnhance.Brightness),
        ("SharpnessIncreasing", ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize(
    ("level", "sign", "factor"),
    [(0.0, 1, 1.0), (0.5, 1, 1.45), (0.5, -1, 0.55), (1.0, 1, 1.9), (1.0, -1, 0.1)],
)
def test_enhancements_move_away_from_factor_1(name, enhancement, level, sign, factor):
    chex.assert_trees_all_equal(operated(name, level, sign), enhanced(enhancement, factor))


def test_brightness_scales_the_values():
    expected = np.minimum(np.asarray(photo()) * 1.45, 255)
    chex.assert_trees_all_close(operated("BrightnessIncreasing", 0.5), expected, rtol=1e-7, atol=1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("name", "coefficients"),
    [
        ("ShearX", lambda sign: (1, 0.15 * sign, 0, 0, 1, 0)),
        ("ShearY", lambda sign: (1, 0, 0, 0.15 * sign, 1, 0)),
        ("TranslateXRel", lambda sign: (1, 0, 6.75 * sign, 0, 1, 0)),  # 0.225 of 30 pixels.
        ("TranslateYRel", lambda sign: (1, 0, 0, 0, 1, 5.4 * sign)),  # Of 24.
    ],
)
def test_shears_and_translations_at_half_strength(name, coefficients, sign):
    chex.assert_trees_all_equal(operated(name, 0.5, sign), affine(*coefficients(sign)))


def test_translation_uncovers_the_fill_colour():
    found = operated("TranslateXRel", 1.0)  # By 13.5 of the 30 pixels, to the left.
    assert (found[:, 17:] == FILL).all() and not (found[:, :15] == FILL).all(-1).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_rotation_by_up_to_30_degrees(sign):
    expected = photo().rotate(15 * sign, Image.Resampling.BICUBIC, fillcolor=FILL)
    chex.assert_trees_all_equal(operated("Rotate", 0.5, sign), np.asarray(expected))


def test_levels_without_effect():
    names = set(OPERATIONS) - {"AutoContrast", "Equalize", "Invert", "PosterizeIncreasing"}
    found = {name: operated(name, 0.0) for name in names}
    chex.assert_trees_all_equal(found, dict.fromkeys(names, np.asarray(photo())))


def carried_out(text, monkeypatch, images=2000):
    """Names, levels and signs of the operations on so many images, and how many each one got."""
    done, counts = [], []
    monkeypatch.setattr(
        randaugment,
        "operate",
        lambda name, image, level, sign, fill: done.append((name, level, sign)) or image,
    )
    augment, rng, image = parse(text), np.random.default_rng(1), photo()
    for _ in range(images):
        before = len(done)
        augment(image, FILL, rng)
        counts.append(len(done) - before)
    names, levels, signs = zip(*done, strict=True)
    return names, np.array(levels), np.array(signs), np.array(counts)


def test_operations_are_equally_frequent_and_carried_out_by_a_fair_coin(monkeypatch):
    names, _, signs, counts = carried_out("rand-m9-mstd0.5-inc1", monkeypatch)
    frequency = collections.Counter(names)
    assert set(frequency) == set(OPERATIONS) and len(OPERATIONS) == 15
    assert stats.chisquare(list(frequency.values())).pvalue > 0.01
    assert stats.chisquare(np.bincount(counts), [500, 1000, 500]).pvalue > 0.01
    assert stats.binomtest(int((signs > 0).sum()), len(signs)).pvalue > 0.01


def test_levels_are_normal_and_end_at_1(monkeypatch):
    _, levels, _, _ = carried_out("rand-m9-mstd0.5-inc1", monkeypatch)
    assert levels.max() == 1.0
    assert stats.binomtest(int((levels == 1).sum()), len(levels), stats.norm.sf(2)).pvalue > 0.01
    below = levels[levels < 0.95]  # Where nothing is cut off: a truncated normal distribution.
    assert stats.kstest(below, stats.truncnorm(-18, 1, 0.9, 0.05).cdf).pvalue > 0.01


def test_levels_without_deviation(monkeypatch):
    _, levels, _, counts = carried_out("rand-inc1-p1-n3-m4", monkeypatch, images=20)
    assert (levels == 0.4).all() and (counts == 3).all()


@pytest.mark.parametrize(
    "text",
    [
        "rand-m9-mstd0.5-inc2",
        "rand-m9-mstd0.5-w0-inc1",
        "rand-m9-m8-inc1",
        "rand-m11-inc1",
        "rand-m9-n1.5-inc1",
        "rand-m9-n0-inc1",
        "rand-m9-p2-inc1",
        "rand-m9--inc1",
        "rand-m-inc1",
    ],
)
def test_impossible_parts_are_named(text):
    with pytest.raises(ValueError, match=r'cannot have the part "[^"]*"; write it like'):
        parse(text)


@pytest.mark.parametrize("text", ["", "rand", "rand-m9", "rand-inc1", "augmix-m9-inc1"])
def test_incomplete_texts(text):
    with pytest.raises(ValueError, match=f'"{text}" is incomplete; write it like'):
        parse(text)
