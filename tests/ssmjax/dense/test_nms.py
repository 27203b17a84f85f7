"""Which boxes are kept: against a greedy loop, with ties and padding."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax.dense.geometry.nms import best, best_of_classes, nms
from tests.oracles import dense_oracle
from tests.ssmjax.dense import units

N = 24


@functools.partial(jax.jit, static_argnames="threshold")
def kept(boxes, scores, valid, threshold):
    """[n] indices kept, best first, and which are there."""
    return best(scores, nms(boxes, scores, valid, threshold), len(scores))


of_classes = jax.jit(best_of_classes, static_argnums=(4, 5))


def listed(indices, chosen):
    return indices[chosen].tolist()


@pytest.mark.parametrize("unit", units.ALL)
def test_official_suppression(unit):
    boxes, scores, classes = (unit[f"nms.{name}"] for name in ("boxes", "scores", "classes"))
    everything = np.ones(len(scores), bool)
    for name in unit.arrays:
        if name.startswith(("nms.keep", "nms.batched_keep")):
            threshold = float(name.rsplit("_", 1)[1])
            if "batched" in name:
                got = of_classes(boxes, scores, classes, everything, threshold, len(scores) + 1)
            else:
                got = kept(boxes, scores, everything, threshold)
            assert listed(*got) == unit[name].tolist(), name


@pytest.mark.parametrize("unit", units.ALL)
def test_official_detections(unit):
    """Candidates over the threshold, suppression inside each class, the best of the rest."""
    score, threshold, count = unit.numbers("mcnms.dets")
    rois, classes = len(unit["mcnms.scores"]), unit["mcnms.scores"].shape[1] - 1
    boxes = jnp.asarray(unit["mcnms.boxes"].reshape(-1, 4))
    scores = jnp.asarray(unit["mcnms.scores"][:, :-1].ravel())
    labels = jnp.tile(jnp.arange(classes), rois)
    chosen, there = of_classes(boxes, scores, labels, scores > score, threshold, int(count))
    dets = np.column_stack([boxes[chosen], scores[chosen]])[there]
    chex.assert_trees_all_equal(dets, unit["mcnms.dets"])
    chex.assert_trees_all_equal(labels[chosen][there], unit["mcnms.labels"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.25, 0.5, 0.75]))
def test_against_a_greedy_loop(seed, threshold):
    rng = np.random.default_rng(seed)
    # Few values: equal scores, equal boxes, boxes without area, IoUs of exactly the threshold.
    low = rng.integers(0, 4, (N, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 5, (N, 2))], 1).astype(np.float32)
    scores = rng.integers(0, 8, N).astype(np.float32)
    valid, groups = rng.random(N) < 0.8, rng.integers(0, 2, N)
    got = listed(*kept(boxes, scores, valid, threshold))
    assert got == dense_oracle.nms(boxes, scores, valid, threshold, 0 * groups)
    want = dense_oracle.nms(boxes, scores, valid, threshold, groups)
    assert listed(*of_classes(boxes, scores, groups, valid, threshold, N)) == want
    assert listed(*of_classes(boxes, scores, groups, valid, threshold, 3)) == want[:3]


def test_exactly_the_threshold_stays():
    boxes = np.float32(
        [[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 3]]
    )  # IoU 0.5 and 0.75 with the first.
    got = listed(*kept(boxes, np.float32([3, 2, 1]), np.ones(3, bool), 0.5))
    assert got == [0, 1]


@pytest.mark.parametrize("n", [2, 7, 30])
def test_a_chain_where_each_decides_about_the_next(n):
    left = np.arange(n, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 3, 0 * left + 1], axis=1)  # IoU 0.5 with the next one.
    got = listed(*kept(boxes, -left, np.ones(n, bool), 0.4))
    assert got == list(range(0, n, 2))


def test_padding_changes_nothing():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (N, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, (N, 2))], 1).astype(np.float32)
    scores = rng.random(N).astype(np.float32)
    want = listed(*kept(boxes, scores, np.ones(N, bool), 0.3))
    place = np.sort(rng.permutation(2 * N)[:N])
    for box, score in ((boxes[0], 2.0), (np.full(4, np.nan), np.nan), (np.full(4, np.inf), np.inf)):
        padded_boxes = np.tile(np.float32(box), (2 * N, 1))
        padded_scores = np.full(2 * N, score, np.float32)
        valid = np.zeros(2 * N, bool)
        padded_boxes[place], padded_scores[place], valid[place] = boxes, scores, True
        got = listed(*kept(padded_boxes, padded_scores, valid, 0.3))
        assert got == place[want].tolist()
    assert listed(*kept(boxes, scores, np.zeros(N, bool), 0.3)) == []


def test_a_batch_is_its_images():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 50, (3, N, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (3, N, 2))], 2).astype(np.float32)
    scores, valid = rng.random((3, N)).astype(np.float32), rng.random((3, N)) < 0.7
    one = functools.partial(nms, threshold=0.4)
    got, one = jax.jit(jax.vmap(one))(boxes, scores, valid), jax.jit(one)
    for b in range(3):
        chex.assert_trees_all_equal(got[b], one(boxes[b], scores[b], valid[b]))
    assert 0 < got.sum() < valid.sum()


@pytest.mark.parametrize(
    ("valid", "count", "indices", "chosen"),
    [
        ([1, 1, 1, 1], 2, [1, 3], [1, 1]),
        ([1, 0, 1, 1], 3, [3, 0, 2], [1, 1, 1]),
        ([0, 0, 1, 0], 3, [2, 0, 0], [1, 0, 0]),
        ([1, 1, 0, 0], 6, [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]),
    ],
)
def test_the_best_of_few(valid, count, indices, chosen):
    got = best(jnp.array([0.5, 0.9, 0.5, 0.9]), jnp.array(valid, bool), count)
    assert (got[0].tolist(), got[1].tolist()) == (indices, [bool(c) for c in chosen])
