"""Position embeddings resized to another grid."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmjax
from ssmjax.layers.pos_embed import resize_pos_embed
from tests.golden import recipe
from tests.oracles import golden, plain_mamba_oracle, vim_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.blank import blank_model

GOLDEN = golden.arrays("posembed_bicubic")
CASES = [name.removeprefix("in_") for name in GOLDEN if name.startswith("in_")]
GRID = st.tuples(st.integers(1, 9), st.integers(1, 9))


def embedding(seed, grid, channels=3):
    return recipe.tensor(seed, "pos_embed", (1, grid[0] * grid[1], channels))


def bicubic(source, target, a=-0.75):
    """[target, source]: four taps around the half-pixel centre, those beyond the edge on it."""
    matrix = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * source / target - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - tap)
            near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[i, min(max(tap, 0), source - 1)] += near if d <= 1 else far
    return matrix


def resized(given, old, new):
    """By the definition, float64."""
    by_rows, by_columns = bicubic(old[0], new[0]), bicubic(old[1], new[1])
    grid = np.asarray(given, np.float64).reshape(*old, -1)
    return np.einsum("ih,jw,hwc->ijc", by_rows, by_columns, grid).reshape(1, new[0] * new[1], -1)


@pytest.mark.parametrize("case", CASES)
def test_official_sizes(case):
    old, new = (tuple(map(int, size.split("x"))) for size in case.split("_to_"))
    given, want = GOLDEN[f"in_{case}"][None], GOLDEN[f"out_{case}"][None]
    assert_close(resized(given, old, new), want, 1e-6)
    assert_close(resize_pos_embed(given, old, new), want, 1e-6)


@settings(max_examples=50, deadline=None)
@given(old=GRID, new=GRID, seed=st.integers(0, 2**31))
def test_any_size(old, new, seed):
    given = embedding(seed, old)
    assert_close(resize_pos_embed(given, old, new), resized(given, old, new), 1e-6)


@settings(max_examples=50, deadline=None)
@given(grid=GRID, seed=st.integers(0, 2**31))
def test_same_size_changes_nothing(grid, seed):
    given = embedding(seed, grid)
    chex.assert_trees_all_equal(resize_pos_embed(given, grid, grid), given)


@settings(max_examples=50, deadline=None)
@given(old=GRID, new=GRID, value=st.floats(-100, 100, width=32))
def test_constants_stay_constant(old, new, value):
    given = np.full((1, old[0] * old[1], 2), value, np.float32)
    got = resize_pos_embed(given, old, new)
    assert_close(got, np.full((1, new[0] * new[1], 2), value), 1e-6)


def test_checkpoint_of_plain_mamba_into_an_oblong_image():
    sizes = {"embed_dim": 16, "d_state": 4, "depth": 1, "patch_size": 8}
    state = golden.plain_mamba_state(1, **sizes, tokens=16, classes=5)
    images = recipe.images(1, (2, 40, 48, 3))
    model = blank_model("plainmamba_l1", **sizes, img_size=(40, 48), num_classes=5)
    ssmjax.load_torch_state_dict(model, state, grid=(4, 4))
    at_its_size = resized(state["backbone.pos_embed"], (4, 4), (5, 6))
    want = plain_mamba_oracle.plain_mamba(state | {"backbone.pos_embed": at_its_size}, images)
    assert_close(model(images), want.logits, 1e-5)


def test_checkpoint_of_vim_keeps_the_class_token():
    """It moves from index 8 of 17 to 15 of 31, and its own embedding is not resized."""
    sizes = {"embed_dim": 16, "d_state": 4, "depth": 1, "patch_size": 8}
    state = golden.vim_state(1, **sizes, tokens=17, classes=5)
    images = recipe.images(1, (2, 40, 48, 3))
    model = blank_model("vim_tiny_patch16_224", **sizes, stride=8, img_size=(40, 48), num_classes=5)
    ssmjax.load_torch_state_dict(model, state, grid=(4, 4))
    logits, feats = model(images, return_intermediates=True)
    cls, given = state["cls_token"][0, 0], state["pos_embed"]
    chex.assert_trees_all_equal(feats["residual"][0][:, 15], np.array([cls + given[0, 8]] * 2))
    patches = resized(np.delete(given, 8, axis=1), (4, 4), (5, 6))
    at_its_size = np.insert(patches, 15, given[0, 8], axis=1)
    want = vim_oracle.vim(state | {"pos_embed": at_its_size}, images, stride=8)
    assert_close(feats["residual"][0], want.embedded, 1e-5)
    assert_close(logits, want.logits, 1e-5)


@pytest.mark.parametrize(
    ("name", "make"),
    [("plainmamba_l1", golden.plain_mamba_state), ("vim_tiny_patch16_224", golden.vim_state)],
)
def test_an_oblong_checkpoint_is_refused(name, make):
    """15 or 16 tokens of no square grid: how they lay is not in the file."""
    sizes = {"embed_dim": 16, "d_state": 4, "depth": 1, "patch_size": 8}
    state = make(1, **sizes, tokens=15, classes=5)
    stride = {} if name == "plainmamba_l1" else {"stride": 8}
    model = blank_model(name, **sizes, **stride, img_size=(40, 48), num_classes=5)
    with pytest.raises(ValueError, match="pos_embed"):
        ssmjax.load_torch_state_dict(model, state)
