"""The PlainMamba oracle: its dense numbers against the official code's, its rules by hand."""

import chex
import numpy as np
import pytest

from tests.oracles import golden
from tests.oracles.compare import assert_close
from tests.oracles.plain_mamba_oracle import depthwise_conv, fill_holes, paths, plain_mamba, scan
from tests.oracles.vim_oracle import Prune


@pytest.mark.parametrize(
    "name", ["plainmamba_micro", pytest.param("plainmamba_l1", marks=pytest.mark.slow)]
)
def test_dense(name):
    case = golden.load(name)
    got = plain_mamba(case.state, case.images)
    assert_close(got.embedded[:, case.tokens, :8], case.want["embed_sample"], 1e-6, "embedding")
    tolerance = {"logits": 1e-12, "feat": 1e-12, "layers": 1e-6}
    golden.check(case, got.logits, got.features, got.hidden, got.residual, "float64", tolerance)


def test_paths():
    want = golden.arrays("plainmamba_paths")
    for name in (name for name in want if name.startswith("order_")):
        size = name.removeprefix("order_")
        official = want[name], want[f"direction_{size}"]
        chex.assert_trees_all_equal({size: paths(*map(int, size.split("x")))}, {size: official})


HOLES = [
    # Kept tokens 1, 3, 5 of  0 1 2 / 3 4 5: 0 ties 1 and 3, 2 ties 1 and 5, 4 ties all three.
    (3, [1, 3, 5], [1, 1, 1, 3, 1, 5]),
    (3, [5], [5, 5, 5, 5, 5, 5]),
    # Kept corners: a step along the column beats two along the row.
    (3, [2, 3], [3, 2, 2, 3, 3, 2]),
    # Of  0 1 / 2 3 / 4 5, the middle row ties above and below.
    (2, [0, 1, 4, 5], [0, 1, 0, 1, 4, 5]),
    # One row: 1 ties 0 and 2 (towards the lower), 4 ties 3 and 5.
    (6, [0, 2, 3, 5], [0, 0, 2, 3, 3, 5]),
]


@pytest.mark.parametrize(("width", "kept", "nearest"), HOLES)
def test_holes(width, kept, nearest):
    keep = np.isin(np.arange(6), kept)
    x = np.where(keep, 10.0 + np.arange(6), np.nan)[:, None]
    chex.assert_trees_all_equal(fill_holes(x, keep, width, "compact")[:, 0], 10.0 + np.r_[nearest])
    aligned = np.where(keep, 10.0 + np.arange(6), 0)
    chex.assert_trees_all_equal(fill_holes(x, keep, width, "aligned")[:, 0], aligned)


@pytest.mark.parametrize(("how", "want"), [("compact", 122456), ("aligned", 120456)])
def test_conv_reads_the_filled_grid(how, want):
    """Grid 1 2 3 / 4 5 6 without the 3, seen from the 5; the last row of taps is off the grid."""
    x, keep = np.arange(1.0, 7)[None, :, None], np.arange(6)[None] != 2
    weight = np.array([[1e5, 1e4, 1e3], [100, 10, 1], [7, 7, 7]])[None, None]
    assert depthwise_conv(x, keep, (2, 3), weight, how)[0, 4, 0] == want


def _one_channel(keep, path, alignment, paired=False):
    """One path over a 2 x 2 grid, A = -0.8: (y, delta, u, B, C, directions) as flat arrays."""
    delta, u = np.array([0.3, 0.7, 1.1, 1.9]), np.array([2.0, -3.0, 5.0, 7.0])
    B, C = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 10.0, 100.0, 1000.0])
    directions = np.array([0.5, 0.25, 0.125, 0.0625])  # by step
    y = scan(
        paths(2, 2)[0][path],
        directions[:, None],
        np.array([keep], bool),
        u[None, :, None],
        delta[None, :, None],
        B[None, :, None],
        C[None, :, None],
        np.array([[-0.8]]),
        np.array([0.0]),
        np.array([0.45]),
        alignment,
        paired,
    )[0, :, 0]
    return y, delta, u, B, C, directions


@pytest.mark.parametrize("alignment", ["previous", "zero_token", "none"])
def test_gaps_are_counted_along_the_path(alignment):
    """Tokens 0 and 1 are neighbours in the row path 0 1 3 2, two apart in the column path 0 2 3 1.

    In the column path the second kept token is at step 3: it takes the direction of that step.
    """
    for path, gap, at in ((0, 0, 1), (2, 2, 3)):
        y, delta, u, B, C, directions = _one_channel([1, 1, 0, 0], path, alignment)
        gamma = {"previous": delta[0], "zero_token": 0.45, "none": 0.0}[alignment]
        h = delta[0] * u[0] * (B[0] + directions[0])
        chex.assert_trees_all_close(y[0], C[0] * h, rtol=1e-14)
        h = np.exp(-0.8 * (gap * gamma + delta[1])) * h + delta[1] * u[1] * (B[1] + directions[at])
        chex.assert_trees_all_close(y[1], C[1] * h, rtol=1e-14)


@pytest.mark.parametrize("paired", [False, True])
def test_kept_steps_take_parameters_in_raster_order(paired):
    """Column path 0 2 3 1 with 3 pruned: steps 0, 1, 3 are tokens 0, 2, 1."""
    y, delta, u, B, C, directions = _one_channel([1, 1, 1, 0], 2, "previous", paired)
    second, last = (2, 1) if paired else (1, 2)  # whose delta, B and C
    h = delta[0] * u[0] * (B[0] + directions[0])
    h = np.exp(-0.8 * delta[second]) * h + delta[second] * u[2] * (B[second] + directions[1])
    chex.assert_trees_all_close(y[2], C[second] * h, rtol=1e-14)
    total = delta[second] + delta[last]  # token 3's step is moved with the delta used at step 1
    h = np.exp(-0.8 * total) * h + delta[last] * u[1] * (B[last] + directions[3])
    chex.assert_trees_all_close(y[1], C[last] * h, rtol=1e-14)


@pytest.mark.parametrize("conv", ["compact", "aligned"])
def test_nothing_of_a_pruned_token_is_read(conv):
    """The oracle puts NaN there; keeping all is the dense run."""
    sizes = {"embed_dim": 16, "d_state": 4, "depth": 3, "patch_size": 8, "dwconv_blocks": (0, 2)}
    state = golden.plain_mamba_state(1, **sizes, tokens=12, classes=5)
    images = golden.recipe.images(1, (2, 24, 32, 3))
    got = plain_mamba(state, images, Prune((1, 2), 0.6, conv=conv))
    assert [stage.shape for stage in got.positions] == [(2, 8), (2, 5)]
    chex.assert_tree_all_finite(got.logits)
    kept = got.positions[1][:, :, None]
    chex.assert_tree_all_finite(np.take_along_axis(got.residual[2], kept, 1))
    all_kept = plain_mamba(state, images, Prune((1, 2), 1.0, conv=conv))
    chex.assert_trees_all_equal(all_kept.logits, plain_mamba(state, images).logits)
    assert np.abs(got.logits - all_kept.logits).max() > 1e-2
