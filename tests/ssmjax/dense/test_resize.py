"""Maps resized and pooled."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from ssmjax.dense.geometry.resize import adaptive_average_pool, resize
from tests.oracles import dense_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.dense import units


@pytest.mark.parametrize("unit", units.ALL)
def test_official_sizes(unit):
    maps = unit["resize.in"]
    for name in "abcd":
        height, width, *step = map(int, unit.numbers(f"resize.bilinear_{name}"))
        step = step[0] if step else 1
        got = resize(maps, (height, width))[:, ::step, ::step]
        assert_close(got, unit[f"resize.bilinear_{name}"], 1e-5, name)
    assert_close(resize(maps, unit["resize.half"].shape[1:3]), unit["resize.half"], 1e-5)


@pytest.mark.parametrize("unit", units.ALL)
def test_official_pools(unit):
    for bins in (1, 2, 3, 6):
        want = unit[f"resize.adaptive_avg_{bins}"]
        assert_close(adaptive_average_pool(unit["resize.in"], bins), want, 1e-5)


@pytest.mark.parametrize(("old", "new"), [((5, 3), (11, 7)), ((6, 8), (4, 3)), ((1, 4), (3, 1))])
def test_resizing_against_a_loop(old, new):
    maps = np.random.default_rng(0).standard_normal((2, *old, 3)).astype(np.float32)
    want = np.zeros((2, *new, 3))
    for i, j in np.ndindex(*new):
        y = np.clip((i + 0.5) * old[0] / new[0] - 0.5, 0, old[0] - 1)
        x = np.clip((j + 0.5) * old[1] / new[1] - 0.5, 0, old[1] - 1)
        want[:, i, j] = [dense_oracle.bilinear(grid, y, x) for grid in maps]
    assert_close(resize(maps, new), want, 1e-5)
    assert_close(resize(maps[0], new), want[0], 1e-5)


@pytest.mark.parametrize(("H", "W", "bins"), [(7, 5, 3), (2, 9, 4), (6, 6, 6)])
def test_pooling_against_a_loop(H, W, bins):
    maps = np.random.default_rng(1).standard_normal((2, H, W, 3)).astype(np.float32)
    want = np.zeros((2, bins, bins, 3))
    for i, j in np.ndindex(bins, bins):
        y1, y2 = i * H // bins, int(np.ceil((i + 1) * H / bins))
        x1, x2 = j * W // bins, int(np.ceil((j + 1) * W / bins))
        want[:, i, j] = maps[:, y1:y2, x1:x2].mean((1, 2))
    assert_close(adaptive_average_pool(maps, bins), want, 1e-5)


def test_low_precision_is_rounded_once():
    maps = jnp.asarray(np.random.default_rng(2).standard_normal((1, 9, 9, 2)), jnp.bfloat16)
    wide = maps.astype(jnp.float32)
    for change in (lambda x: resize(x, (13, 4)), lambda x: adaptive_average_pool(x, 4)):
        got = change(maps)
        chex.assert_type(got, jnp.bfloat16)
        chex.assert_trees_all_equal(got, change(wide).astype(jnp.bfloat16))
