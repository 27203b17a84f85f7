"""What each strategy says of tokens: its scores, and which token is most like which."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from ssmjax.pruning.geometry import Geometry
from ssmjax.pruning.strategies import STRATEGIES
from ssmjax.pruning.strategies.strategy import Tokens


def judged(importance, signal, **fields):
    """Scores of tokens on a grid of 2 x 4."""
    positions = jnp.arange(signal.shape[1], dtype=jnp.int32)[None]
    geometry = Geometry(**({"grid": (2, 4)} | fields))
    return STRATEGIES[importance].judge(Tokens(signal, signal, positions, geometry))


@pytest.mark.parametrize(
    ("importance", "scores"),
    [
        ("clip", [3.0, 2.0]),
        ("sum", [1.0, 2.0]),
        ("l1", [5.0, 2.0]),
        ("l2", [13**0.5, 2.0]),
        ("delta", [0.5, 1.0]),
    ],
)
def test_scores(importance, scores):
    got = judged(importance, jnp.array([[[3.0, -2.0], [2.0, 0.0]]])).scores
    chex.assert_trees_all_close(got, np.array([scores]), rtol=1e-6)


def test_uniform_keeps_tokens_spread_evenly():
    length = 4000
    scores = np.asarray(judged("uniform", jnp.zeros((1, length, 1)), grid=(40, 100)).scores[0])
    order = np.argsort(np.modf(np.arange(length) * 0.6180339887498949)[0])
    chex.assert_trees_all_equal(np.argsort(scores), order)
    kept = np.sort(np.argsort(-scores)[:1000])
    assert np.diff(kept).max() <= 6  # Three-gap theorem: gaps of a golden-ratio sequence.


def test_coverage_takes_the_best_of_each_neighbourhood_first():
    # Two neighbourhoods side by side: cells 0, 1, 4, 5 and 2, 3, 6, 7.
    y = jnp.array([9.0, 8, 1, 2, 7, 6, 4, 3])[None, :, None]
    ranks = [0, -2, -7, -5, -4, -6, -1, -3]
    chex.assert_trees_all_equal(judged("coverage", y).scores, np.array([ranks]))


def numpy_match(features, local):
    """The most alike odd place of each even one, by loops."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    best = {}
    for i in range(0, len(unit), 2):
        rivals = range(1, len(unit), 2)
        if local:
            rivals = [j for j in rivals if abs(j - i) == 1]
        likeness, first = max((float(unit[i] @ unit[j]), -j) for j in rivals)
        best[i] = likeness, -first
    return best


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("class_index", [None, 3])
def test_matching_against_loops(local, class_index):
    places = 9
    features = np.random.default_rng(5).standard_normal((1, places, 3)).astype(np.float32)
    given = features
    names = np.arange(places)
    if class_index is not None:
        given = np.insert(features, class_index, 7.0, axis=1)
        names = np.delete(np.arange(places + 1), class_index)
    importance = "similarity_local" if local else "similarity_global"
    got = judged(importance, jnp.asarray(given), class_index=class_index, grid=(3, 3))
    assert got.targets is not None
    for even, (likeness, odd) in numpy_match(features[0], local).items():
        chex.assert_trees_all_close(got.scores[0, names[even]], -likeness, rtol=1e-7, atol=1e-6)
        assert got.targets[0, names[even]] == names[odd]
    chex.assert_trees_all_equal(got.scores[0, names[1::2]], np.inf)
