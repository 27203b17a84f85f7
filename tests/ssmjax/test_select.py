"""Which tokens are kept: counts, order, ties, NaN, protected tokens."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmjax import PruneConfig
from ssmjax.pruning.select import gather_tokens, select_tokens
from tests.variants import in_all_variants

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("scores", "count", "kept"),
    [
        ([1, 3, 2, 4], 2, [1, 3]),
        ([5, 5, 5, 5], 2, [0, 1]),
        ([0.0, -0.0, 0.0, -0.0], 3, [0, 1, 2]),
        ([NAN, -INF, NAN, -1], 2, [1, 3]),
        ([NAN, NAN, NAN, 2], 2, [0, 3]),
        ([INF, 1, INF, INF], 2, [0, 2]),
    ],
)
def test_order_ties_and_nan(scores, count, kept):
    assert select_tokens(jnp.array([scores], jnp.float32), count)[0].tolist() == kept


def test_protected_tokens_beat_every_score():
    scores = jnp.array([[INF, INF, NAN, INF], [1, 2, 3, 4]], jnp.float32)
    protected = jnp.array([[False, False, True, False], [True, False, False, False]])
    assert select_tokens(scores, 2, protected).tolist() == [[0, 2], [0, 3]]


class TestVariants(chex.TestCase):
    @in_all_variants
    def test_select_and_gather(self):
        scores = np.array([[INF, 3, NAN, 5], [1, 2, 2, 0]], np.float32)
        protected = np.array([[False, False, True, False], [False] * 4])
        tokens = np.arange(16, dtype=np.float32).reshape(2, 4, 2)

        @self.variant
        def selected(scores, protected, tokens):
            kept = select_tokens(scores, 2, protected)
            return kept, gather_tokens(tokens, kept)

        got, want = selected(scores, protected, tokens), np.array([[0, 2], [1, 2]])
        chex.assert_type(got, [jnp.int32, jnp.float32])
        chex.assert_trees_all_equal(got, (want, np.take_along_axis(tokens, want[..., None], 1)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31), st.data())
def test_against_a_stable_sort(length, seed, data):
    count = data.draw(st.integers(1, length))
    scores = np.random.default_rng(seed).integers(-2, 3, (3, length)).astype(np.float32)
    want = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :count], axis=1)
    chex.assert_trees_all_equal(select_tokens(jnp.asarray(scores), count), want)


def test_no_gradient_flows_through_the_choice():
    def kept_sum(scores, tokens):
        return jnp.sum(gather_tokens(tokens, select_tokens(scores, 2)) ** 2)

    scores, tokens = jnp.array([[3.0, 1.0, 2.0]]), jnp.arange(6.0).reshape(1, 3, 2)
    to_scores, to_tokens = jax.grad(kept_sum, argnums=(0, 1))(scores, tokens)
    chex.assert_trees_all_equal(to_scores, 0)
    chex.assert_trees_all_equal(to_tokens, np.array([[[0, 2], [0, 0], [8, 10]]]))


@pytest.mark.parametrize(
    ("ratio", "tokens", "count"),
    [(0.8, 196, 157), (0.8, 245, 196), (0.55, 100, 55), (0.7, 10, 7), (1.0, 7, 7), (0.01, 5, 1)],
)
def test_counts(ratio, tokens, count):
    assert PruneConfig((1,), ratio).count(tokens) == count


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"keep_ratio": 0.0}, "keep_ratio is 0.0"),
        ({"keep_ratio": 1.1}, "keep_ratio is 1.1"),
        ({"keep_ratio": NAN}, "keep_ratio is nan"),
        ({"after_blocks": (0, 1)}, "after_blocks is"),
        ({"after_blocks": (2, 1)}, "after_blocks is"),
        ({"after_blocks": ()}, "after_blocks is"),
        (
            {"importance": "best"},
            "choose one of attention, random, uniform",
        ),
        ({"alignment": "next"}, "choose one of previous, zero_token, none"),
        ({"conv": "none"}, "choose one of compact, aligned"),
        ({"reduction": "keep"}, "choose one of drop, merge"),
    ],
)
def test_bad_values(fields, said):
    with pytest.raises(ValueError, match=said):
        PruneConfig(**({"after_blocks": (1,), "keep_ratio": 0.5} | fields))
