"""Overlap of boxes, and their deltas."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax.dense.geometry.boxes import clip, decode, encode, iou
from tests.oracles import dense_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.dense import units

STDS = {"std1": (1.0, 1.0, 1.0, 1.0), "std01": (0.1, 0.1, 0.2, 0.2)}


def random_boxes(rng, n, size=100.0, smallest=0.5):
    low = rng.uniform(-10, size, (n, 2))
    return np.concatenate([low, low + rng.uniform(smallest, size, (n, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("unit", units.ALL)
@pytest.mark.parametrize("name", STDS)
def test_official_deltas(unit, name):
    boxes, stds = unit["coder.boxes"], STDS[name]
    want = unit[f"coder.encode.{name}"]
    assert_close(encode(boxes, unit["coder.gt"], stds), want, 1e-5)
    shape = jnp.asarray(unit.numbers(f"coder.decode.{name}"))
    got = decode(boxes, unit["coder.deltas"], stds, shape)
    assert_close(got, unit[f"coder.decode.{name}"], 1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6))
def test_overlaps_against_a_loop(seed, smallest):
    rng = np.random.default_rng(seed)
    # Integers of few values: boxes without an area, equal boxes, boxes side by side.
    a, b = (rng.integers(0, 5, (n, 4)).astype(np.float32) for n in (7, 5))
    for boxes in (a, b):
        boxes[:, 2:] += boxes[:, :2] + smallest // 2
    want = [[dense_oracle.iou(p, q) for q in b] for p in a]
    chex.assert_trees_all_close(iou(a, b), np.array(want), rtol=1e-6)
    chex.assert_trees_all_equal(iou(a, b).T, iou(b, a))


def test_boxes_without_area_overlap_by_nothing():
    point, line = np.float32([[3, 3, 3, 3]]), np.float32([[0, 3, 9, 3]])
    chex.assert_trees_all_equal(iou(np.vstack([point, line]), np.vstack([point, line])), 0)


@pytest.mark.parametrize("name", STDS)
def test_decoding_is_the_way_back(name):
    rng = np.random.default_rng(0)
    boxes, targets = (random_boxes(rng, 50, smallest=2.0) for _ in range(2))
    shape = jnp.array([150, 140])
    deltas = encode(boxes, targets, STDS[name])
    back = jax.jit(decode, static_argnums=2)(boxes, deltas, STDS[name], shape)
    assert_close(back, clip(targets, shape), 1e-5)


def test_a_side_grows_by_a_factor_of_62_and_a_half_at_most():
    box = np.float32([[100, 200, 101, 202]])
    for delta, factor in ((50.0, 62.5), (-50.0, 1 / 62.5)):
        x1, y1, x2, y2 = decode(box, np.float32([[0, 0, delta, delta]]), STDS["std01"], (999, 999))[
            0
        ]
        chex.assert_trees_all_close(
            np.array((x2 - x1, y2 - y1)), np.array((factor, 2 * factor)), rtol=1e-2
        )


def test_decoding_per_class_and_image():
    """Deltas of C classes [B,P,C,4] of proposals [B,P,1,4], each image with its own border."""
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 6).reshape(2, 3, 1, 4)
    deltas = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    shapes = jnp.array([[40, 90], [90, 40]])
    decoded = jax.jit(lambda b, d, s: decode(b, d, STDS["std1"], s))
    got = jax.vmap(decoded)(boxes, deltas, shapes)
    chex.assert_shape(got, (2, 3, 5, 4))
    for index in np.ndindex(2, 3, 5):
        one = decoded(boxes[index[:2]][0], deltas[index], shapes[index[0]])
        chex.assert_trees_all_close(got[index], one, rtol=1e-5, atol=1e-5)
    assert got[0, ..., 3].max() == 40 and got[1, ..., 2].max() == 40
