"""RoIAlign: against a loop over samples, at borders, with padding; its gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax.dense.geometry.roi_align import STRIDES, level_of, roi_align
from tests.oracles import dense_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.dense import units

SHAPES = ((24, 20), (12, 10), (6, 5), (3, 3))
R, C = 6, 3
in_batch = jax.jit(roi_align, static_argnums=(3, 4))


def aligned(maps, boxes, valid, bins, strides=STRIDES):
    """Of one image."""
    maps, boxes, valid = jax.tree.map(lambda a: jnp.asarray(a)[None], (maps, boxes, valid))
    return in_batch(maps, boxes, valid, bins, strides)[0]


def random_maps(rng, shapes=SHAPES):
    return [rng.standard_normal((*shape, C)).astype(np.float32) for shape in shapes]


def random_boxes(rng, n, size):
    """Some integers, some not, some partly or wholly outside; sides of `size` at most."""
    low = rng.uniform(-20, 100, (n, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, size, (n, 2))], axis=1)
    return np.where(rng.random((n, 1)) < 0.5, np.round(boxes), boxes).astype(np.float32)


def oracle(maps, boxes, bins, strides=STRIDES):
    result = []
    for level, box in zip(level_of(boxes, len(maps)).tolist(), boxes, strict=True):
        cells = box / strides[level]
        result.append(dense_oracle.roi_align(maps[level], cells, bins))
    return np.stack(result)


@pytest.mark.parametrize("unit", units.ALL)
@pytest.mark.parametrize("bins", [7, 14])
def test_official_roi_align(unit, bins):
    rois, want = unit["roi.rois"], unit[f"roi.out{bins}_adaptive"]
    (stride,) = map(int, unit.numbers("roi.feat"))
    for image, one in enumerate(unit["roi.feat"]):
        mine = rois[:, 0] == image
        got = aligned([one], rois[:, 1:], mine, bins, (stride,))
        assert_close(got, np.where(mine[:, None, None, None], want, 0), 1e-5)


@pytest.mark.parametrize("unit", units.ALL)
@pytest.mark.parametrize(("name", "samples"), [("out7_adaptive", None), ("out7_sr2", 2)])
def test_the_loop_is_official(unit, name, samples):
    (stride,) = unit.numbers("roi.feat")
    for (image, *box), want in zip(unit["roi.rois"], unit[f"roi.{name}"], strict=True):
        grid, cells = unit["roi.feat"][int(image)].astype(np.float64), np.array(box) / stride
        assert_close(dense_oracle.roi_align(grid, cells, 7, samples), want, 1e-5)


@pytest.mark.parametrize("unit", units.ALL)
def test_official_levels(unit):
    chex.assert_trees_all_equal(level_of(unit["roi.level_rois"][:, 1:]), unit["roi.levels"])


def test_levels_change_at_powers_of_two():
    sides = np.float32([1, 111.99, 112, 223.9, 224, 447.9, 448, 895, 896, 5000])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    want = [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert jax.jit(level_of)(boxes).tolist() == want
    assert level_of(boxes, 2).tolist() == [min(level, 1) for level in want]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([20, 150, 600]))
def test_against_a_loop(seed, size):
    rng = np.random.default_rng(seed)
    maps, boxes = random_maps(rng), random_boxes(rng, R, size)
    got = aligned(maps, boxes, np.ones(R, bool), 2)
    want = oracle(maps, boxes, 2)
    chex.assert_trees_all_close(got, want, rtol=1e-7, atol=2e-5 * np.abs(maps[0]).max())


@pytest.mark.parametrize("bins", [3, 7])
def test_lengths_that_bins_divide(bins):
    """A bin of exactly n cells has n samples, not n + 1, however the division rounds."""
    grid = random_maps(np.random.default_rng(2), [(24, 24)])
    cells = np.float32([[1, 2, 1 + n * bins, 2 + m * bins] for n in (1, 2, 3) for m in (1, 3)])
    got = aligned(grid, 4 * cells, np.ones(6, bool), bins, (4,))
    want = oracle(grid, 4 * cells, bins, (4,))
    chex.assert_trees_all_close(got, want, rtol=1e-7, atol=1e-5)


def test_boxes_without_area_and_padding_give_zeros():
    maps = random_maps(np.random.default_rng(3))
    boxes = np.array([[9, 9, 9, 9], [9, 9, 9, 40], [9, 9, 40, 9], [9, 9, 40, 40]], np.float32)
    boxes = np.concatenate([boxes, boxes[3:], np.full((1, 4), np.nan, np.float32)])
    valid = np.array([True] * 4 + [False] * 2)
    got = np.asarray(aligned(maps, boxes, valid, 3))
    chex.assert_trees_all_equal(got[[0, 1, 2, 4, 5]], 0)
    assert np.abs(got[3]).max() > 0.1
    far = np.float32([[-90, 0, -50, 30], [500, 0, 560, 30], [0, 300, 30, 330]])
    chex.assert_trees_all_equal(aligned(maps, far, np.ones(3, bool), 3), 0)


def test_long_thin_boxes_and_those_larger_than_their_map():
    """Hundreds of samples a bin, of which none is left out."""
    maps = random_maps(np.random.default_rng(4), [(3, 300)])
    cells = np.float32([[2, 1, 290, 1.5], [-400, -300, 700, 9], [-1e4, 0, 1e4, 3], [9, 0, 40, 3]])
    got = aligned(maps, 4 * cells, np.ones(4, bool), 2, (4,))
    chex.assert_trees_all_close(got, oracle(maps, 4 * cells, 2, (4,)), rtol=1e-7, atol=1e-4)


def test_gradient_equals_differences_and_boxes_have_none():
    rng = np.random.default_rng(5)
    maps, boxes = random_maps(rng), random_boxes(rng, R, 150)
    valid = np.arange(R) != 2
    towards = rng.standard_normal((R, 3, 3, C)).astype(np.float32)

    @jax.jit
    def loss(maps, boxes):
        out = aligned(maps, boxes, valid, 3)
        return jnp.sum(towards * out + out**2)

    to_maps, to_boxes = jax.jit(jax.grad(loss, argnums=(0, 1)))(maps, boxes)
    chex.assert_trees_all_equal(to_boxes, 0)
    for level, shape in enumerate(SHAPES):
        step = rng.standard_normal((*shape, C)).astype(np.float32)
        sides = []
        for sign in (1, -1):
            moved = [m + sign * 0.5 * step if i == level else m for i, m in enumerate(maps)]
            sides.append(float(loss(moved, boxes)))
        # The loss is quadratic in the maps: central differences have no error of their own.
        chex.assert_trees_all_close(
            np.sum(to_maps[level] * step), sides[0] - sides[1], rtol=1e-7, atol=2e-3
        )


def test_batch_and_low_precision():
    rng = np.random.default_rng(6)
    boxes = np.stack([random_boxes(rng, R, 150) for _ in range(2)])
    valid = rng.random((2, R)) < 0.7
    pairs = zip(random_maps(rng), random_maps(rng), strict=True)
    maps = [jnp.stack(pair).astype(jnp.bfloat16) for pair in pairs]

    def total(maps):
        out = roi_align(maps, boxes, valid, 3)
        return jnp.sum(out.astype(jnp.float32) ** 2), out

    gradient, out = jax.jit(jax.grad(total, has_aux=True))(maps)
    assert {out.dtype, *(g.dtype for g in gradient)} == {jnp.dtype(jnp.bfloat16)}
    for b in range(2):
        mine = [m[b].astype(jnp.float32) for m in maps]
        exact, pull = jax.vjp(lambda m, b=b: aligned(m, boxes[b], valid[b], 3), mine)
        assert_close(out[b], exact, 2**-8)
        for got, want in zip(gradient, pull(2 * exact)[0], strict=True):
            assert_close(got[b], want, 2**-6)
