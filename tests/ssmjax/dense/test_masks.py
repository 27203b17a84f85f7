"""Masks cut out for training, and pasted back into the image."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax.dense.geometry.masks import crop, mask_targets, paste
from tests.oracles import dense_oracle
from tests.ssmjax.dense import units

pasted = jax.jit(paste, static_argnums=2)
cropped = jax.jit(crop, static_argnums=4)


@pytest.mark.parametrize("unit", units.ALL)
def test_official_targets(unit):
    masks, indices, boxes = (unit[f"mask.{name}"] for name in ("gt", "gt_index", "boxes"))
    sides, bins = np.array(masks.shape[1:]), unit["mask.target"].shape[1]
    chex.assert_trees_all_close(
        cropped(masks, indices, boxes, sides, bins), unit["mask.target_soft"], rtol=1e-7, atol=1e-5
    )
    got = jax.jit(mask_targets, static_argnums=4)(masks, indices, boxes, sides, bins)
    chex.assert_trees_all_equal(got, unit["mask.target"])


@pytest.mark.parametrize("unit", units.ALL)
def test_official_pasting(unit):
    want = unit["paste.out"]
    got = np.asarray(pasted(unit["paste.prob"], unit["paste.boxes"], want.shape[1:]))
    chex.assert_trees_all_close(got, want, rtol=1e-7, atol=5e-4)  # float16
    bits = np.packbits(got.reshape(len(got), -1) >= 0.5, axis=1)
    chex.assert_trees_all_equal(bits, unit["paste.mask_packed"])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(1, 1), (5, 40), (33, 17)]), st.integers(1, 4))
def test_targets_against_a_loop(seed, shape, bins):
    rng = np.random.default_rng(seed)
    masks = rng.random((3, *shape)) < 0.5
    # In a batch of larger images, whose padding must count for nothing.
    padded = np.pad(masks, ((0, 0), (0, 7), (0, 5)))
    indices = rng.integers(0, 3, 6)
    low = rng.uniform(-5, 30, (6, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 30, (6, 2))], 1).astype(np.float32)
    got = cropped(padded, indices, boxes, np.array(shape), bins)
    clipped = np.clip(boxes, 0, [shape[1], shape[0]] * 2)
    for one, index, box in zip(got, indices, clipped, strict=True):
        want = dense_oracle.roi_align(masks[index, :, :, None] * 1.0, box, bins)[..., 0]
        chex.assert_trees_all_close(one, want, rtol=1e-7, atol=2e-5)


def test_a_bin_half_covered_is_part_of_the_object():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 1:7, 2:5] = True
    boxes = np.float32([[1, 1, 7, 7], [0, 0, 8, 8], [3, 3, 3, 3], [20, 20, 30, 30]])
    sides = np.array([8, 8])
    got = mask_targets(mask, np.zeros(4, int), boxes, sides, 2)
    # Columns 1 to 4 and 4 to 7 with 2 of 3 and 1 of 3 covered; then rows with 3 of 4 besides.
    assert got.astype(int).tolist() == [
        [[1, 0], [1, 0]],
        [[0, 0], [0, 0]],
        [[0, 0], [0, 0]],
        [[0, 0], [0, 0]],
    ]
    half = mask_targets(mask, np.zeros(1, int), np.float32([[0, 2, 4, 6]]), sides, 1)
    assert half.tolist() == [[[True]]]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(9, 30), (21, 13)]))
def test_pasting_against_a_loop(seed, shape):
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 5, 4)).astype(np.float32)
    low = rng.uniform(-20, 30, (3, 2))  # Some wholly outside.
    boxes = np.concatenate([low, low + rng.uniform(0.5, 40, (3, 2))], 1).astype(np.float32)
    for got, mask, box in zip(pasted(masks, boxes, shape), masks, boxes, strict=True):
        chex.assert_trees_all_close(got, dense_oracle.paste(mask, box, shape), rtol=1e-7, atol=1e-4)


def test_pasting_into_nothing_and_of_nothing():
    masks = np.ones((4, 3, 3), np.float32)
    boxes = np.float32([[4, 4, 4, 4], [4, 0, 4, 9], [0, 4, 9, 4], [1, 1, 7, 7]])
    got = np.asarray(pasted(masks, boxes, (8, 8)))
    chex.assert_trees_all_equal(got[:3], 0)
    inside = np.zeros((8, 8), bool)
    inside[1:7, 1:7] = True
    chex.assert_trees_all_equal(got[3] >= 0.5, inside)
    chex.assert_trees_all_equal(pasted(0 * masks, boxes, (8, 8)), 0)
