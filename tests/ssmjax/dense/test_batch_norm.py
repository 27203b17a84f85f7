"""Batch statistics against PyTorch's numbers, with and without a mask."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssmjax import create_model
from ssmjax.layers.norm import BatchNorm
from tests.oracles.compare import assert_close
from tests.ssmjax.dense import units

FEATURES = 5


def batch(*shape, seed=1):
    draw = np.random.default_rng(seed).normal(size=(*shape, FEATURES))
    return (3 + draw * np.arange(1, FEATURES + 1)).astype(np.float32)


def statistics(norm):
    return np.asarray(norm.mean[...]), np.asarray(norm.var[...]), int(norm.count[...])


@pytest.mark.parametrize("unit", units.ALL)
def test_step(unit):
    norm = BatchNorm(unit["bn.in"].shape[-1])
    assert_close(norm(jnp.asarray(unit["bn.in"]), train=True), unit["bn.out"], 1e-6)
    mean, var, count = statistics(norm)
    assert_close(mean, unit["bn.running_mean"], 1e-6)
    assert_close(var, unit["bn.running_var"], 1e-6)
    assert count == 1


def test_steps_follow_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.nn.BatchNorm2d(FEATURES), BatchNorm(FEATURES)
    for seed in range(3):
        x = batch(2, 3, 4, seed=seed)
        want = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy()
        assert_close(ours(jnp.asarray(x), train=True), want.transpose(0, 2, 3, 1), 1e-6)
    mean, var, count = statistics(ours)
    assert_close(mean, theirs.running_mean.numpy(), 1e-6)
    assert_close(var, theirs.running_var.numpy(), 1e-6)
    assert count == int(theirs.num_batches_tracked)


@pytest.mark.parametrize("shape", [(6,), (6, 2, 3)])
def test_masked_rows_count_for_nothing(shape):
    x, mask = batch(*shape), np.array([1, 0, 1, 1, 0, 1], bool)
    masked, alone = BatchNorm(FEATURES), BatchNorm(FEATURES)
    want = alone(jnp.asarray(x[mask]), train=True)
    x[~mask] = 1e6
    got = masked(jnp.asarray(x), train=True, mask=jnp.asarray(mask))
    assert_close(np.asarray(got)[mask], want, 1e-6)
    for a, b in zip(statistics(masked), statistics(alone), strict=True):
        assert_close(a, b, 1e-6)


@pytest.mark.parametrize("mask", [None, np.array([0, 0, 1, 0, 1, 1], bool)])
@pytest.mark.parametrize("synchronised", [False, True])
def test_devices_each_take_their_rows_unless_synchronised(synchronised, mask):
    """The stored statistics move by the first one's, which may have none that counts."""
    x, shared = jnp.asarray(batch(6, 2, 3)), BatchNorm(FEATURES)
    shared.synchronised, shared.devices = synchronised, 3
    got = shared(x, train=True, mask=mask)
    rows = 6 if synchronised else 2
    for first in range(0, 6, rows):
        part, alone = slice(first, first + rows), BatchNorm(FEATURES)
        want = alone(x[part], train=True, mask=None if mask is None else mask[part])
        chex.assert_trees_all_close(got[part], want, rtol=1e-6, atol=1e-6)
        if not first:
            chex.assert_trees_all_close(statistics(shared), statistics(alone), rtol=1e-6)


def test_gradient_is_that_of_the_rows_that_count():
    x, mask = batch(6), np.array([1, 0, 1, 1, 0, 1], bool)
    weights = jnp.asarray(batch(6, seed=2))

    def loss(x, weights, mask=None):
        return jnp.sum(BatchNorm(FEATURES)(x, train=True, mask=mask) * weights)

    got = jax.grad(loss)(x, jnp.where(mask[:, None], weights, 0), jnp.asarray(mask))
    assert_close(got[mask], jax.grad(loss)(x[mask], weights[mask]), 1e-5)
    assert not np.asarray(got)[~mask].any()


@pytest.mark.parametrize("train", [False, True])
def test_stored_statistics_stay(train):
    norm = BatchNorm(FEATURES)
    norm.mean.set_value(jnp.arange(5.0))
    mask = jnp.zeros(4, bool) if train else None  # Nothing counts, or nothing is trained.
    got = norm(jnp.asarray(batch(4)), train=train, mask=mask)
    chex.assert_tree_all_finite(got)
    mean, var, count = statistics(norm)
    chex.assert_trees_all_equal(mean, np.arange(5))
    chex.assert_trees_all_equal(var, np.ones(5))
    assert count == 0


def test_bfloat16_is_normalised_in_float32():
    x = jnp.asarray(batch(64)).astype(jnp.bfloat16)
    low, wide = BatchNorm(FEATURES), BatchNorm(FEATURES)
    got, want = low(x, train=True), wide(x.astype(jnp.float32), train=True)
    chex.assert_trees_all_equal(got, want.astype(jnp.bfloat16))
    chex.assert_trees_all_equal(low.var[...], wide.var[...])


@pytest.mark.slow
def test_statistics_from_outside_of_a_transformed_function():
    """One sentence that says what to do, of a norm alone and of a classifier; both ways work."""
    sizes = {"depth": 1, "embed_dim": 8, "patch_size": 4, "img_size": 8, "d_state": 2}
    model = create_model("plainmamba_l1", **sizes, stem_convs=0, dwconv_blocks=(), num_classes=2)
    images, x = jnp.ones((2, 8, 8, 3)), jnp.asarray(batch(4))
    norm, said = BatchNorm(FEATURES), r"copy=True\), and return nnx.state\(model, nnx.BatchStat"
    with pytest.raises(ValueError, match=said):
        jax.jit(lambda x: norm(x, train=True))(x)
    graphdef, params, others = nnx.split(model, nnx.Param, ...)

    def loss(params, copy):
        own = nnx.merge(graphdef, params, others, copy=copy)
        return own(images, train=True).sum(), nnx.state(own, nnx.BatchStat)

    with pytest.raises(ValueError, match=said):
        jax.grad(loss, has_aux=True)(params, False)
    _, of_copy = jax.grad(loss, has_aux=True)(params, True)
    assert model.patch_embed.stem[0].norm.count[...] == 0
    nnx.grad(lambda model: model(images, train=True).sum())(model)
    chex.assert_trees_all_close(of_copy, nnx.state(model, nnx.BatchStat), rtol=1e-6)
