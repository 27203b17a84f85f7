"""The four serpentine paths over a grid."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax.layers.scan_paths import scan_paths
from tests.oracles import golden, plain_mamba_oracle

GOLDEN = golden.arrays("plainmamba_paths")
SIZES = [name.removeprefix("order_") for name in GOLDEN if name.startswith("order_")]
MOVES = {1: (0, 1), 2: (0, -1), 3: (-1, 0), 4: (1, 0)}  # code: (down, right)
SIDE = st.integers(1, 17)


@pytest.mark.parametrize("size", SIZES)
def test_official_paths(size):
    order, direction = scan_paths(*map(int, size.split("x")))
    chex.assert_type(order, np.int32)
    chex.assert_trees_all_equal(order, GOLDEN[f"order_{size}"])
    chex.assert_trees_all_equal(direction, GOLDEN[f"direction_{size}"])


@settings(max_examples=50, deadline=None)
@given(height=SIDE, width=SIDE)
def test_every_path_visits_each_token_once_by_the_moves_it_names(height, width):
    order, direction = scan_paths(height, width)
    chex.assert_shape([order, direction], (4, height * width))
    for path, codes in zip(order, direction, strict=True):
        chex.assert_trees_all_equal(np.sort(path), np.arange(height * width))
        assert codes[0] == 0
        at = np.stack(np.divmod(path, width), axis=1)
        moves = np.array([MOVES[code] for code in codes[1:].tolist()]).reshape(-1, 2)
        chex.assert_trees_all_equal(np.diff(at, axis=0), moves)


@settings(max_examples=50, deadline=None)
@given(height=SIDE, width=SIDE)
def test_symmetries(height, width):
    """Rows from the top left; backwards; and both again on the transposed grid."""
    order, _ = scan_paths(height, width)
    chex.assert_trees_all_equal(order[0, :width], np.arange(width))
    chex.assert_trees_all_equal(order[1], order[0, ::-1])
    transposed, _ = scan_paths(width, height)
    chex.assert_trees_all_equal(
        order[2:], transposed[:2] % height * width + transposed[:2] // height
    )


@settings(max_examples=50, deadline=None)
@given(height=SIDE, width=SIDE)
def test_against_the_oracle(height, width):
    for got, want in zip(
        scan_paths(height, width), plain_mamba_oracle.paths(height, width), strict=True
    ):
        chex.assert_trees_all_equal(got, want)
