"""Every strategy through one class, on every family that gives what it needs.

Fusing, which only attention can, is held against an oracle in test_vit_pruned.py.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx

import ssmjax
from ssmjax import PruneConfig
from ssmjax.models.config import SSMConfig
from ssmjax.pruning.geometry import Geometry
from ssmjax.pruning.reduce import Present, reduce_tokens
from ssmjax.pruning.strategies import STRATEGIES
from ssmjax.pruning.stream import Stream
from tests.variants import in_all_variants

SMALL = {"depth": 2, "embed_dim": 16, "patch_size": 4, "img_size": (20, 24)}
FAMILIES = {
    "vim": ("vim_tiny_patch16_224", SMALL | {"d_state": 2}),
    "plain_mamba": ("plainmamba_l1", SMALL | {"d_state": 2, "dwconv_blocks": (), "conv_size": 3}),
    "vit": ("deit_tiny_patch16_224", SMALL | {"num_heads": 2}),
}
GIVEN = {"vim": ("output", "delta"), "plain_mamba": ("output", "delta"), "vit": ("attention",)}
CHOICES = [
    (family, importance)
    for family, signals in GIVEN.items()
    for importance, strategy in STRATEGIES.items()
    if strategy.needs in (None, *signals)
]
# In whole models; the stages below are of every strategy.
QUICK = [
    ("vim", "random"),
    ("vim", "clip"),
    ("vim", "similarity_local"),
    ("plain_mamba", "delta"),
    ("plain_mamba", "similarity_global"),
    ("vit", "attention"),
]
# A family gives signals, and knows nothing of who reads them or of what becomes of the tokens.
REDUCTION = {"vim": "drop", "plain_mamba": "merge", "vit": "merge"}
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 20, 24, 3))


@pytest.fixture(params=STRATEGIES)
def importance(request):
    return request.param


@pytest.fixture(params=["drop", "merge"])
def reduction(request):
    return request.param


@functools.cache
def dense(family):
    name, sizes = FAMILIES[family]
    return ssmjax.create_model(name, num_classes=5, **sizes)


def pruned(family, importance, reduction, after_blocks, ratio):
    prune = PruneConfig(after_blocks, ratio, importance=importance, reduction=reduction)
    return dense(family).with_prune(prune)


@functools.cache
def program(family, importance, reduction, ratio):
    model = pruned(family, importance, reduction, (1,), ratio)
    return str(jax.make_jaxpr(model)(jnp.zeros((4, 20, 24, 3))))


def stage(importance, reduction, count, *, signal, features=None, class_index=None, key=KEY):
    """One stage on a grid of 5 x 6, where all tokens are there."""
    (batch, length), grid = signal.shape[:2], (5, 6)
    assert length == 30 + (class_index is not None)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    features = signal if features is None else features
    if STRATEGIES[importance].needs == "attention":
        signal = signal[..., 0]  # One number for each token.
    return reduce_tokens(
        PruneConfig((1,), 0.5, importance=importance, reduction=reduction),
        Present(Stream(features), positions, None),
        count,
        Geometry(grid, class_index),
        signal=None if STRATEGIES[importance].needs is None else signal,
        key=key,
    )


class TestEveryStrategy:
    @pytest.mark.parametrize(
        ("family", "importance"),
        [
            pytest.param(*choice, marks=() if choice in QUICK else pytest.mark.slow)
            for choice in CHOICES
        ],
    )
    def test_counts_order_class_token_and_batch(self, images, family, importance):
        model = pruned(family, importance, REDUCTION[family], (1, 2), 0.3)
        logits, stages = model(images, key=KEY, return_positions=True)
        chex.assert_tree_all_finite(logits)
        index = model.config.class_index
        before = np.arange(model.config.length)[None].repeat(4, 0)
        for kept, count in zip(stages, model.config.image_tokens[1:], strict=True):
            chex.assert_shape(kept, (4, count + (index is not None)))
            chex.assert_type(kept, jnp.int32)
            assert (np.diff(kept, axis=1) > 0).all()
            for row, present in zip(np.asarray(kept), before, strict=True):
                assert set(row) <= set(present) and (index is None or index in row)
            before = np.asarray(kept)
        # Another company changes nothing for an image.
        others = images.at[jnp.array([0, 1, 3])].multiply(-2)
        again, stages_again = model(others, key=KEY, return_positions=True)
        for kept, kept_again in zip(stages, stages_again, strict=True):
            chex.assert_trees_all_equal(kept[2], kept_again[2])
        chex.assert_trees_all_close(logits[2], again[2], rtol=1e-7, atol=1e-6)
        assert not np.allclose(logits[1], again[1], atol=1e-6)

    @pytest.mark.parametrize(("family", "importance"), CHOICES)
    def test_keeping_all_is_one_program(self, family, importance, reduction):
        """That of `uniform`, which the test below holds against the dense model."""
        everything = program(family, importance, reduction, 1.0)
        assert everything == program(family, "uniform", "drop", 1.0)
        assert everything != program(family, "uniform", "drop", 0.9)

    def test_ties_go_to_the_lower_index(self, importance, reduction):
        if STRATEGIES[importance].needs is None:
            pytest.skip("it does not score by a signal")
        kept = stage(importance, reduction, 7, signal=jnp.ones((2, 30, 3))).positions
        # Under coverage, the first of each 2 x 2 neighbourhood comes first.
        first = [0, 2, 4, 12, 14, 16, 24] if importance == "coverage" else list(range(7))
        assert kept.tolist() == [first, first]

    def test_nan_is_dropped_first_and_the_class_token_never(self, importance, reduction):
        signal = jax.random.normal(jax.random.key(1), (2, 31, 4))
        signal = signal.at[:, (4, 15, 21)].set(jnp.nan)
        kept = np.asarray(stage(importance, reduction, 28, signal=signal, class_index=15).positions)
        chex.assert_shape(kept, (2, 29))
        assert (kept == 15).any(axis=1).all()
        if importance not in ("random", "uniform"):
            assert not np.isin(kept, (4, 21)).any()

    def test_merging_loses_nothing(self, importance):
        tokens = jax.random.normal(jax.random.key(2), (2, 31, 4))
        for count in (25, 11):
            merged = stage(importance, "merge", count, signal=tokens, class_index=15)
            (features, *_), positions, sizes = merged
            assert sizes is not None
            chex.assert_shape([sizes, positions], (2, count + 1))
            chex.assert_trees_all_close(sizes.sum(axis=1), 31, rtol=1e-7)
            total = np.einsum("bk,bkd->bd", sizes, features)
            chex.assert_trees_all_close(total, tokens.sum(axis=1), rtol=1e-7, atol=1e-5)
            alone = np.asarray(positions) == 15
            chex.assert_trees_all_equal(np.asarray(sizes)[alone], 1)
            chex.assert_trees_all_close(np.asarray(features)[alone], tokens[:, 15], rtol=1e-6)

    def test_dropping_leaves_tokens_as_they_are(self, importance):
        tokens = jax.random.normal(jax.random.key(2), (2, 30, 4))
        (features, *_), positions, sizes = stage(importance, "drop", 11, signal=tokens)
        assert sizes is None
        kept = np.take_along_axis(np.asarray(tokens), np.asarray(positions)[..., None], axis=1)
        chex.assert_trees_all_equal(features, kept)

    def test_gradients_flow_through_features_only(self, importance, reduction):
        tokens = jax.random.normal(jax.random.key(2), (2, 31, 4))

        def total(signal, features):
            present = stage(
                importance, reduction, 20, signal=signal, features=features, class_index=15
            )
            weights = 1 if present.sizes is None else present.sizes[..., None]
            return jnp.sum(weights * present.stream[0])

        to_signal, to_features = jax.grad(total, argnums=(0, 1))(tokens, tokens)
        chex.assert_trees_all_equal(to_signal, 0)
        kept = np.ones((2, 31), bool)
        if reduction == "drop":
            positions = stage(importance, reduction, 20, signal=tokens, class_index=15).positions
            kept = (np.arange(31) == np.asarray(positions)[..., None]).any(axis=1)
        want = np.broadcast_to(kept[..., None], tokens.shape)
        chex.assert_trees_all_close(to_features, want, rtol=1e-7, atol=1e-6)


class TestVariants(chex.TestCase):
    @in_all_variants
    @parameterized.parameters("drop", "merge")
    def test_a_stage_by_sums(self, reduction):
        tokens = np.random.default_rng(7).standard_normal((2, 30, 4)).astype(np.float32)
        reduced = self.variant(lambda signal: stage("sum", reduction, 11, signal=signal))(tokens)
        best = np.sort(np.argsort(-tokens.sum(axis=2), axis=1, kind="stable")[:, :11], axis=1)
        chex.assert_trees_all_equal(reduced.positions, best)
        (features,) = jax.tree.leaves(reduced.stream)
        chex.assert_shape(features, (2, 11, 4))
        if reduction == "drop":
            kept = np.take_along_axis(tokens, best[..., None], axis=1)
            chex.assert_trees_all_equal(features, kept)
        else:
            total = np.einsum("bk,bkd->bd", reduced.sizes, features)
            chex.assert_trees_all_close(total, tokens.sum(axis=1), rtol=1e-7, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_is_the_dense_model(images, family):
    model = pruned(family, "uniform", "drop", (1,), 1.0)
    chex.assert_trees_all_equal(model(images), dense(family)(images))


@pytest.mark.parametrize(
    "family", ["vim", pytest.param("plain_mamba", marks=pytest.mark.slow), "vit"]
)
def test_every_parameter_learns(images, family):
    importance = "attention" if family == "vit" else "coverage"
    model = pruned(family, importance, REDUCTION[family], (1,), 0.4)
    graphdef, params, others = nnx.split(model, nnx.Param, ...)

    def loss(params):
        return jnp.sum(nnx.merge(graphdef, params, others)(images) ** 2)

    gradients = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(gradients)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_merged_tokens_weigh_by_size():
    tokens = jnp.array([[[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]] * 5])
    first = stage("similarity_local", "merge", 15, signal=tokens)
    second = reduce_tokens(
        PruneConfig((1,), 0.5, importance="uniform", reduction="merge"),
        first,
        4,
        Geometry((5, 6)),
        signal=None,
        key=None,
    )
    assert second.sizes is not None
    chex.assert_trees_all_close(second.sizes.sum(), 30, rtol=1e-7)
    total = (np.asarray(second.stream[0])[..., 0] * np.asarray(second.sizes)).sum()
    chex.assert_trees_all_close(total, tokens.sum(), rtol=1e-6)


def test_pooling_counts_each_patch_once(images):
    merging, model = (pruned("plain_mamba", "l2", how, (2,), 0.4) for how in ("merge", "drop"))
    _, (kept,), hidden = merging(images, return_positions=True, return_intermediates=True)
    _, dropped = model(images, return_intermediates=True)
    assert not np.allclose(hidden["features"], dropped["features"], atol=1e-4)
    # Tokens are merged after the last block, before the norm: their mean is over all patches.
    stream = hidden["residual"][-1]
    gap = np.abs(np.arange(30)[None, :, None] - np.asarray(kept)[:, None, :])
    sizes = (gap.argmin(axis=2)[:, :, None] == np.arange(12)).sum(axis=1)
    want = (np.asarray(merging.norm(stream)) * sizes[..., None]).sum(axis=1) / 30
    chex.assert_trees_all_close(hidden["features"], want, rtol=1e-7, atol=1e-5)


def test_what_a_family_cannot_give_is_refused(monkeypatch):
    monkeypatch.setattr(SSMConfig, "signals", ("delta",))
    with pytest.raises(ValueError, match="'clip', which needs the blocks' output; .* delta"):
        ssmjax.create_model("vim_tiny_patch16_224", prune=PruneConfig((1,), 0.5))
