"""Anchors and which of them are used in training."""

import chex
import jax
import numpy as np
import pytest

from ssmjax.dense.geometry.anchors import Anchors
from tests.oracles.compare import assert_close
from tests.ssmjax.dense import units

RATIOS = (0.5, 1, 2)
HEADS = {
    "rpn": ((4, 8, 16, 32, 64), (8,)),
    "retina": ((8, 16, 32, 64, 128), tuple(4 * 2 ** (i / 3) for i in range(3))),
}


@pytest.mark.parametrize("unit", units.ALL)
@pytest.mark.parametrize("head", HEADS)
def test_official_anchors(unit, head):
    strides, scales = HEADS[head]
    grids = [tuple(grid) for grid in unit[f"anchors.{head}.feature_sizes"].tolist()]
    anchors = Anchors(strides, scales, RATIOS)
    base = anchors.boxes([(1, 1)] * len(strides))
    assert_close(np.stack(base), unit[f"anchors.{head}.base"], 1e-6)
    levels = anchors.boxes(grids)
    assert_close(levels[1], unit[f"anchors.{head}.level1_grid"], 1e-6)
    padded = np.int32(unit.numbers(f"anchors.{head}.valid_count")[2:])
    valid = anchors.valid(padded, grids)
    assert [v.sum() for v in valid] == unit[f"anchors.{head}.valid_count"].tolist()
    assert [v.shape for v in valid] == [level.shape[:1] for level in levels]


@pytest.mark.parametrize(("H", "W", "stride"), [(1, 1, 4), (3, 5, 8), (7, 2, 16)])
def test_against_a_loop(H, W, stride):
    scales, want = (3, 5.5), []
    for i, j in np.ndindex(H, W):
        for ratio in RATIOS:
            for scale in scales:
                w, h = stride * scale / ratio**0.5, stride * scale * ratio**0.5
                x, y = j * stride, i * stride
                want.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    (got,) = Anchors([stride], scales, RATIOS).boxes([(H, W)])
    chex.assert_type(got, np.float32)
    assert_close(got, want, 1e-6)


@pytest.mark.parametrize("padded", [(32, 64), (96, 32), (33, 31), (128, 128)])
def test_valid_cells_are_those_that_begin_inside(padded):
    grids, strides = [(16, 12), (8, 6), (2, 2)], (8, 16, 64)
    anchors = Anchors(strides, (1,), RATIOS)
    got = jax.jit(lambda shape: anchors.valid(shape, grids))(np.int32(padded))
    for (H, W), stride, level in zip(grids, strides, got, strict=True):
        want = np.zeros((H, W, 3), bool)
        want[: -(-padded[0] // stride), : -(-padded[1] // stride)] = True
        chex.assert_trees_all_equal(level, want.ravel())
