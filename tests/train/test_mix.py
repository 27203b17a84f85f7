"""Mixup and cutmix against timm's definition, written out in numpy."""

from functools import partial

import chex
import jax
import numpy as np
import pytest
from scipy import stats

from train.augment.mix import draw_own_share, mix, rectangle, smooth_targets

SIZE = (20, 31)
DRAWS = 4000


def timm_box(share, row, column):
    """[height,width] bool: what cutmix pastes."""
    height, width = SIZE
    cut_height, cut_width = (int(side * np.sqrt(1 - share)) for side in SIZE)
    top, bottom = (np.clip(row + d * (cut_height // 2), 0, height) for d in (-1, 1))
    left, right = (np.clip(column + d * (cut_width // 2), 0, width) for d in (-1, 1))
    box = np.zeros(SIZE, bool)
    box[top:bottom, left:right] = True
    return box


def distance(a, b):
    """Largest distance of two samples' distribution functions."""
    statistic, _ = stats.ks_2samp(a, b)
    return float(statistic)


def draws(seed, **alphas):
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    return np.asarray(jax.jit(jax.vmap(partial(draw_own_share, size=SIZE, **alphas)))(keys))


def test_rectangle():
    rng = np.random.default_rng(0)
    shares = rng.beta(0.5, 0.5, 300).astype(np.float32)
    centres = rng.integers(0, SIZE, (300, 2))
    got = jax.vmap(partial(rectangle, SIZE))(shares, centres)
    for box, share, centre in zip(got, shares, centres, strict=True):
        chex.assert_trees_all_equal(box, timm_box(share, *centre))


def test_smoothed_targets():
    got = smooth_targets(np.array([2, 0]), 4, 0.1)
    want = np.array([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    chex.assert_trees_all_close(got, want, rtol=1e-6)


@pytest.mark.parametrize("alphas", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_images_and_targets_are_mixed_with_those_of_the_reversed_batch(alphas):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((5, *SIZE, 3), np.float32)
    targets = rng.dirichlet(np.ones(7), 5).astype(np.float32)
    for seed in range(3):
        key = jax.random.key(seed)
        own = np.asarray(draw_own_share(key, SIZE, **alphas))[..., None]
        got, said = mix(key, images, targets, **alphas)
        if alphas["cutmix"]:
            assert set(np.unique(own)) == {0, 1}
            want = np.where(own == 1, images, images[::-1])
            share = np.count_nonzero(own) / own.size
        else:
            share = own[0, 0, 0]
            assert 0 < share < 1 and np.all(own == share)
            want = share * images + (1 - share) * images[::-1]
        chex.assert_trees_all_close(got, want, rtol=1e-7, atol=1e-6)
        chex.assert_trees_all_close(
            said, share * targets + (1 - share) * targets[::-1], rtol=1e-7, atol=1e-6
        )


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_share_of_mixup_has_the_beta_distribution(alpha):
    shares = draws(0, mixup=alpha, cutmix=0.0)[:, 0, 0]
    assert distance(shares, np.random.default_rng(1).beta(alpha, alpha, DRAWS)) < 0.03


def test_share_and_place_of_cutmix_have_timms_distribution():
    pasted = draws(0, mixup=0.0, cutmix=1.0) == 0
    rng = np.random.default_rng(1)
    wanted = np.stack(
        [
            timm_box(rng.beta(1, 1), rng.integers(SIZE[0]), rng.integers(SIZE[1]))
            for _ in range(DRAWS)
        ]
    )
    assert distance(pasted.mean(axis=(1, 2)), wanted.mean(axis=(1, 2))) < 0.03
    # How often each pixel is pasted, in five standard deviations of a share.
    chex.assert_trees_all_close(
        pasted.mean(axis=0), wanted.mean(axis=0), rtol=1e-7, atol=5 * 0.5 / DRAWS**0.5
    )


def test_with_both_a_fair_coin_chooses():
    own = draws(0, mixup=0.8, cutmix=1.0)
    cut = np.isin(own, (0, 1)).all(axis=(1, 2))
    assert abs(cut.mean() - 0.5) < 4 * 0.5 / DRAWS**0.5
    # Each has its own alpha: of mixup's 0.8, the variance is 1 / (4 * 2.6).
    assert abs(own[~cut][:, 0, 0].var() - 1 / 10.4) < 0.005
    only = draws(1, mixup=0.0, cutmix=1.0)
    assert distance(own[cut].mean(axis=(1, 2)), only.mean(axis=(1, 2))) < 0.04
