"""The Vim oracle: its dense numbers against the official code's, its rules by hand."""

import chex
import numpy as np
import pytest

from tests.oracles import golden, vim_oracle
from tests.oracles.compare import assert_close
from tests.oracles.vim_oracle import Prune, causal_conv, count_to_keep, importance, select


@pytest.mark.parametrize("name", ["vim_micro", pytest.param("vim_tiny", marks=pytest.mark.slow)])
def test_dense(name):
    case = golden.load(name)
    got = vim_oracle.vim(case.state, case.images, case.config["stride"])
    assert_close(got.embedded[:, case.tokens, :8], case.want["embed_sample"], 1e-6, "embedding")
    tolerance = {"logits": 1e-12, "feat": 1e-12, "layers": 1e-6}
    golden.check(case, got.logits, got.features, got.hidden, got.residual, "float64", tolerance)


@pytest.mark.parametrize(
    ("ratio", "present", "want"),
    [
        (0.8, 245, 196),
        (0.8, 196, 157),
        (0.8, 157, 126),
        (0.55, 100, 55),
        (0.07, 300, 21),
        (0.7, 10, 7),
        (0.7, 11, 8),
        (1.0, 17, 17),
        (1 / 3, 3, 1),
        (0.01, 5, 1),
    ],
)
def test_count_to_keep(ratio, present, want):
    assert count_to_keep(ratio, present) == want


def test_select_ties_and_nan():
    scores = np.array([1.0, np.nan, 3.0, 1.0, -np.inf, 1.0, 9.0])
    candidates = [0, 1, 2, 3, 4, 5]  # 6 is no candidate, whatever its score
    assert select(scores, candidates, 1) == [2]
    assert select(scores, candidates, 3) == [0, 2, 3]
    assert select(scores, candidates, 5) == [0, 2, 3, 4, 5]
    assert select(scores, candidates, 6) == candidates


def test_importance():
    y = np.array([[[3.0, -4.0], [-1.0, 2.0]]])
    assert importance(y, "clip").tolist() == [[3.0, 2.0]]
    assert importance(y, "sum").tolist() == [[-1.0, 1.0]]
    assert importance(y, "l1").tolist() == [[7.0, 3.0]]
    assert importance(y, "l2")[0, 0] == 5.0
    uniform = importance(np.zeros((1, 4, 2)), "uniform")
    chex.assert_trees_all_close(
        uniform, np.array([[0, 0.6180339887, 0.2360679775, 0.8541019662]]), rtol=1e-7, atol=1e-9
    )


def test_conv_neighbours():
    x = np.array([[1.0], [2.0], [4.0], [8.0], [16.0]])
    keep = np.array([True, False, True, True, False])
    weight = np.array([[[1000.0, 100.0, 10.0, 1.0]]])  # the last tap is the token itself
    compact = causal_conv(x, keep, weight, 0.5, "compact")[keep, 0]
    aligned = causal_conv(x, keep, weight, 0.5, "aligned")[keep, 0]
    assert compact.tolist() == [1.5, 14.5, 148.5]
    assert aligned.tolist() == [1.5, 104.5, 1048.5]


def _scan_state(delta_weight):
    """One channel, one state: u = silu(x), B = C = u, step = softplus(bias + delta_weight u)."""
    return {
        "conv1d.weight": np.array([[[0.0, 0.0, 0.0, 1.0]]]),
        "conv1d.bias": np.array([0.7]),
        "A_log": np.zeros((1, 1)),
        "D": np.zeros(1),
        "x_proj.weight": np.ones((3, 1)),
        "dt_proj.weight": np.full((1, 1), delta_weight),
        "dt_proj.bias": np.array([0.3]),
    }


@pytest.mark.parametrize("alignment", ["previous", "zero_token", "none"])
def test_pruned_position_moves_the_state_one_step(alignment):
    state, keep = _scan_state(1.5), np.array([[True, False, False, True]])
    x = np.array([[[0.4], [5.0], [-7.0], [-0.2]]])
    y = vim_oracle.branch(state, "", "", x, keep, Prune(alignment=alignment))[0, :, 0]
    first, last = (vim_oracle.silu(v + 0.7) for v in (0.4, -0.2))
    step = {u: np.log1p(np.exp(0.3 + 1.5 * u)) for u in (first, last, vim_oracle.silu(0.7))}
    gamma = {"previous": step[first], "zero_token": step[vim_oracle.silu(0.7)], "none": 0.0}
    h = step[first] * first * first
    chex.assert_trees_all_close(y[0], first * h, rtol=1e-14)
    h = h * np.exp(-2 * gamma[alignment] - step[last]) + step[last] * last * last
    chex.assert_trees_all_close(y[3], last * h, rtol=1e-14)
