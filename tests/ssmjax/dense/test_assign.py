"""Which object each box is to predict, and which boxes are learned from."""

import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax.dense.geometry.boxes import iou
from ssmjax.dense.heads.assign import assign
from ssmjax.dense.heads.sample import sample
from tests.oracles import dense_oracle
from tests.ssmjax.dense import units

# Of each head: pos, neg, min_pos.
HEADS = {"rpn": (0.7, 0.3, 0.3), "retina": (0.5, 0.4, 0.0), "rcnn": (0.5, 0.5, 0.5)}
A, G = 30, 5
assigned = jax.jit(assign, static_argnums=(3, 4, 5))
chosen_of = jax.jit(sample, static_argnums=(1, 2, 3))


def padded(gts, G):
    """[G,4] with what may stand in padding, and [G] bool."""
    rest = np.array([[0, 0, 0, 0], [0, 0, 50, 50], [np.nan] * 4], np.float32)[: G - len(gts)]
    return np.concatenate([gts, rest]), np.arange(len(gts) + len(rest)) < len(gts)


@pytest.mark.parametrize("unit", units.ALL)
@pytest.mark.parametrize("head", HEADS)
def test_official_assignment(unit, head):
    boxes, gts = unit["assign.boxes"], unit["assign.gt"]
    got = assigned(boxes, *padded(gts, len(gts) + 3), *HEADS[head])
    chex.assert_trees_all_equal(got, unit[f"assign.{head}.gt_inds"])
    chex.assert_trees_all_close(
        iou(boxes, gts).max(axis=1), unit[f"assign.{head}.max_iou"], rtol=1e-6
    )


@pytest.mark.parametrize("unit", units.ALL)
@pytest.mark.parametrize("padding", [0, 3])
def test_official_assignment_without_objects(unit, padding):
    nobody = padded(np.zeros((0, 4), np.float32), padding)
    got = assigned(unit["assign.boxes"], *nobody, *HEADS["rpn"])
    chex.assert_trees_all_equal(got, unit["assign.rpn_nogt.gt_inds"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, G), st.sampled_from(sorted(HEADS)))
def test_against_a_loop(seed, objects, head):
    rng = np.random.default_rng(seed)
    # Few values: equal boxes and equal overlaps, boxes without area, objects that none overlaps.
    low = rng.integers(0, 6, (A + objects, 2))
    both = np.concatenate([low, low + rng.integers(0, 5, (A + objects, 2))], 1).astype(np.float32)
    boxes, gts = both[:A], both[A:]
    valid = rng.random(A) < rng.choice([0.0, 0.5, 1.0])
    many = np.concatenate([gts, np.float32(G * [[0, 0, 9, 9]])])[:G]
    got = np.asarray(assigned(boxes, many, np.arange(G) < objects, *HEADS[head], valid))
    assert set(got[~valid].tolist()) <= {-1}
    assert got[valid].tolist() == dense_oracle.assign(boxes[valid], gts, *HEADS[head])


@pytest.mark.parametrize("seed", range(5))
def test_each_object_takes_all_its_best_boxes(seed):
    """Equal boxes tie whatever the rounding, compiled with anything around."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 300, (60, 2))
    boxes = np.concatenate([low, low + rng.uniform(20, 300, (60, 2))], 1).astype(np.float32)
    gts = (boxes[::20] + rng.uniform(-6, 6, (3, 4))).astype(np.float32)
    twice = np.concatenate([boxes, boxes[::-1]])
    got = np.asarray(assigned(twice, gts, np.ones(3, bool), 0.999, 0.3, 0.3))
    chex.assert_trees_all_equal(got, np.concatenate([got[:60], got[59::-1]]))
    assert [np.sum(got == k) for k in (1, 2, 3)] == [2, 2, 2]


def test_a_batch_is_its_images():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 50, (2, A + G, 2))
    both = np.concatenate([low, low + rng.uniform(5, 60, (2, A + G, 2))], 2).astype(np.float32)
    valid = np.array([[True] * G, [True] + [False] * (G - 1)])
    one = jax.jit(functools.partial(assign, pos=0.5, neg=0.4, min_pos=0.0))
    got = jax.vmap(one)(both[:, :A], both[:, A:], valid)
    for b in range(2):
        chex.assert_trees_all_equal(got[b], one(both[b, :A], both[b, A:], valid[b]))
    assert got[0].max() > 1 and got[1].max() == 1


def galleries(given):
    return np.flatnonzero(given > 0), np.flatnonzero(given == 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(0.9, 0.05), (0.05, 0.9), (0.3, 0.3), (0, 0)]))
def test_even_choice(seed, shares):
    rng, size, most = np.random.default_rng(seed), 12, 5
    given_ = rng.choice([2, 0, -1], 40, p=[*shares, 1 - sum(shares)])
    positives, background = galleries(given_)
    p = min(len(positives), most)
    n = min(len(background), size - p)
    want = [positives[i * len(positives) // p] for i in range(p)]
    want += [background[i * len(background) // n] for i in range(n)]
    indices, chosen = chosen_of(given_, None, size, most)
    assert indices[chosen].tolist() == want
    assert chosen.tolist() == [i < p + n for i in range(size)]
    assert set(indices[~chosen].tolist()) <= {0}


@pytest.mark.parametrize("size", [4, 16, 64])
def test_random_choice(size):
    given_ = np.array([3, 0, 0, -1, 1, 0, 1, 0, -1, 2, 0, 0, 0, 0, 0, 0])
    positives, background = galleries(given_)
    most, draws = size // 2, 400
    keys = jax.random.split(jax.random.key(0), draws)
    indices, chosen = jax.jit(jax.vmap(lambda key: sample(given_, key, size, most)))(keys)
    p = min(len(positives), most)
    n = min(len(background), size - p)
    times = np.zeros(len(given_))
    for row, there in zip(np.asarray(indices), np.asarray(chosen), strict=True):
        assert there.tolist() == [i < p + n for i in range(size)]
        assert set(row[:p]) <= set(positives) and set(row[p : p + n]) <= set(background)
        assert len(set(row[there])) == p + n
        times[row[there]] += 1
    for gallery, count in ((positives, p), (background, n)):
        share = count / len(gallery)
        deviation = np.sqrt(draws * share * (1 - share))
        assert np.abs(times[gallery] - draws * share).max() <= 4 * deviation
