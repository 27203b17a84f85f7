"""The training step: what it changes, what it counts, and what it must leave alone."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.small import BATCH, Linear, classify, run, start
from train.config import AugmentConfig, OptimConfig
from train.engine import optim
from train.engine.step import init_state, make_train_step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Distance:
    """Mean distance of the outputs from a vector; a `train.engine.step.Loss` without labels."""

    vector: np.ndarray

    def prepare(self, batch, key):
        return {"image": batch["image"].astype(jnp.float32)}

    def __call__(self, model, batch, key):
        away = model(batch["image"]) - self.vector
        return {"distance": (jnp.sqrt(jnp.sum(away**2, axis=-1)).sum(), jnp.float32(len(away)))}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Coin:
    """A loss that only draws: 0 or 1 for a part of the batch."""

    def prepare(self, batch, key):
        return batch

    def __call__(self, model, batch, key):
        return {"coin": (jax.random.bernoulli(key).astype(jnp.float32), jnp.float32(1))}


def leaves(state):
    """Copies of what a step trains: the state itself is donated."""
    return [np.array(a) for a in jax.tree.leaves((state.params, state.averaged, state.opt_state))]


def same(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("warmup", "decays"), [(True, [1 / 10, 2 / 11, 3 / 12]), (False, [0.9, 0.9, 0.9])]
)
def test_decay_of_the_average(warmup, decays):
    """Without warm-up, as timm's: what the run starts from keeps a share of 0.9 to the steps."""
    config = OptimConfig(lr=0.1, ema=0.9, ema_warmup=warmup)
    state, step = start(Linear(), config)
    average = np.array(state.params["head"]["kernel"][...], np.float64)
    for decay in decays:
        state, _ = step(state, BATCH)
        params = np.array(state.params["head"]["kernel"][...], np.float64)
        average = decay * average + (1 - decay) * params
        chex.assert_trees_all_close(
            np.asarray(state.averaged["head"]["kernel"][...]), average, atol=1e-6
        )
    assert np.abs(average - params).max() > 1e-3


@pytest.mark.optimised
@pytest.mark.parametrize(("compiled", "lr"), [(True, 0.1), (False, 0.2)])
def test_the_step_of_a_loss_without_labels(compiled, lr):
    config = OptimConfig(lr=lr, clip=None, weight_decay=0.0, ema=0.9)
    vector = np.array([1, 200, -3], np.float32)
    head = Linear().head
    assert head.bias is not None
    kernel, bias = (np.array(a[...], np.float64) for a in (head.kernel, head.bias))
    with chex.fake_jit(enable_patching=not compiled):
        state, step = start(Linear(), config, Distance(vector))
        state, metrics = step(state, BATCH)
    x = np.float64(BATCH["image"]).reshape(8, -1)
    away = x @ kernel + bias - vector
    far = np.sqrt(np.sum(away**2, axis=1, keepdims=True))
    grads = {"kernel": x.T @ (away / far) / 8, "bias": np.mean(away / far, axis=0)}
    chex.assert_trees_all_close(metrics["loss"], far.mean(), rtol=1e-5)
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    chex.assert_trees_all_close(metrics["grad_norm"], norm, rtol=1e-5)
    # AdamW's first step is the sign of the gradient.
    want = bias - lr * np.sign(grads["bias"])
    chex.assert_trees_all_close(state.params["head"]["bias"][...], want, rtol=1e-7, atol=1e-5)
    # The average starts short, at decay (1 + 0) / (10 + 0).
    averaged = bias + (1 - 1 / 10) * (want - bias)
    chex.assert_trees_all_close(state.averaged["head"]["bias"][...], averaged, rtol=1e-7, atol=1e-5)
    assert [int(a) for a in (state.step, state.skipped, state.skipped_in_a_row)] == [1, 0, 0]


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(erase=0.5, mixup=0.8)])
def test_parts_of_a_batch_add_up_to_the_whole(augment):
    whole, parts = (
        run(Linear(), config, classify(config, augment))
        for config in (OptimConfig(lr=0.01, accumulate=n) for n in (1, 4))
    )
    chex.assert_trees_all_close(whole[1], parts[1], rtol=1e-5)
    chex.assert_trees_all_close(leaves(whole[0]), leaves(parts[0]), rtol=1e-3, atol=1e-5)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bright:
    """Two terms over different numbers: of the images, and of the bright ones among them."""

    def prepare(self, batch, key):
        images = batch["image"].astype(jnp.float32) / 255
        return {"image": images, "bright": images.mean(axis=(1, 2, 3)) > 0.5}

    def __call__(self, model, batch, key):
        said, bright = model(batch["image"]), batch["bright"]
        total = jnp.sum(jnp.where(bright, said[:, 1] ** 2, 0))
        return {"all": (said[:, 0].sum(), jnp.int32(len(said))), "bright": (total, bright.sum())}


@pytest.mark.parametrize("bright", [(0, 1, 2, 4), ()])
def test_each_term_is_over_its_number_in_the_whole_batch(bright):
    """Parts have 2, 1, 1 and 0 bright images, or none at all has one."""
    images = np.random.default_rng(0).integers(0, 100, (8, 16, 16, 3)).astype(np.uint8)
    images[list(bright)] += np.uint8(155)
    said = np.asarray(Linear()(np.float32(images) / 255), np.float64)
    want = said[:, 0].mean() + (said[list(bright), 1] ** 2).sum() / max(len(bright), 1)
    config = OptimConfig(lr=0.1, clip=None)
    grads = []
    for parts in (1, 2, 4):
        chosen = dataclasses.replace(config, accumulate=parts)
        state, step = start(Linear(), chosen, Bright())
        state, told = step(state, {"image": images})
        chex.assert_trees_all_close(told["loss"], want, rtol=1e-5)
        grads.append(optax.tree.get(state.opt_state, "mu"))
        chex.assert_trees_all_close(grads[-1], grads[0], rtol=1e-4, atol=1e-7)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Slope:
    """A loss of constant gradient, whose Adam steps are the learning rate itself."""

    def prepare(self, batch, key):
        return batch

    def __call__(self, model, batch, key):
        return {"slope": (model(batch["image"]).sum(), jnp.float32(len(batch["image"])))}


@pytest.mark.parametrize("options", [{}, {"frozen": ("head.kernel",)}])
def test_the_rate_goes_by_the_step_with_those_skipped(options):
    """As the log, which tells `schedule` of the step."""
    config = OptimConfig(
        lr=0.1, min_lr=0.01, steps=10, warmup_steps=4, warmup_lr=0.02, clip=None, weight_decay=0.0
    )
    config = dataclasses.replace(config, **options)
    rate = optim.schedule(config, 5)
    optimizer = optim.optimizer(config, rate)
    state = init_state(Linear(), optimizer)
    step = make_train_step(Linear(), optimizer, config, Slope(), jax.random.key(0), state)
    images, used = np.ones((4, 16, 16, 3), np.float32), {}
    for number in range(10):
        before = np.array(state.params["head"]["bias"][...])
        state, _ = step(state, {"image": images * (np.nan if number in (0, 2, 3, 7) else 1)})
        moved = before - np.array(state.params["head"]["bias"][...])
        if number not in (0, 2, 3, 7):
            used[number] = moved
        else:
            assert not moved.any()
    assert int(state.skipped) == 4
    for number, moved in used.items():
        chex.assert_trees_all_close(moved, float(rate(number)), rtol=1e-4)
    chex.assert_trees_all_close(float(rate(10)), 0.01, rtol=1e-6)


def test_each_part_and_each_step_has_a_key_of_its_own():
    config = OptimConfig(accumulate=8)
    losses = 8 * np.array(run(Linear(), config, Coin(), steps=20)[1])
    chex.assert_trees_all_equal(losses, np.round(losses))
    assert len(set(losses)) > 3 and abs(losses.mean() - 4) < 4 * (8 * 0.25 / 20) ** 0.5


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
    config = OptimConfig(lr=0.1, ema=0.9, accumulate=2)
    state, step = start(Linear(), config, Distance(np.zeros(3, np.float32)))
    photos = np.float32(BATCH["image"])
    # At a distance of 0 the loss is finite and the gradient is not; then the loss is neither.
    bad = [np.zeros_like(photos), photos.copy()]
    bad[1][3, 0, 0, 0] = np.inf
    before = leaves(state)
    for number, images in enumerate(bad, start=1):
        state, metrics = step(state, {"image": images})
        assert np.isfinite(metrics["loss"]) == (number == 1)
        assert not np.isfinite(metrics["grad_norm"])
        assert same(leaves(state), before)
        assert [int(a) for a in (state.step, state.skipped, state.skipped_in_a_row)] == [number] * 3
        assert int(metrics["skipped_in_a_row"]) == number
    state, metrics = step(state, {"image": photos})
    assert not same(leaves(state), before)
    assert [int(a) for a in (state.step, state.skipped, state.skipped_in_a_row)] == [3, 2, 0]
    assert int(metrics["skipped_in_a_row"]) == 0


def test_frozen_parameters_stay_to_the_bit_and_count_in_no_norm():
    config = OptimConfig(lr=0.1, ema=0.9, frozen=("head.kernel",))
    vector = np.array([1, 200, -3], np.float32)
    state, step = start(Linear(), config, Distance(vector))
    before = np.array(state.params["head"]["kernel"][...])
    for _ in range(3):
        bias = np.array(state.params["head"]["bias"][...])
        state, metrics = step(state, BATCH)
    for params in (state.params, state.averaged):
        chex.assert_trees_all_equal(params["head"]["kernel"][...], before)
    away = np.float64(BATCH["image"]).reshape(8, -1) @ np.float64(before) + bias - vector
    grad = np.mean(away / np.linalg.norm(away, axis=1, keepdims=True), axis=0)
    chex.assert_trees_all_close(metrics["grad_norm"], np.linalg.norm(grad), rtol=1e-4)


def test_equal_runs_share_a_compiled_step(monkeypatch):
    """Neither the key nor the loss' array is part of it; the number of parts is."""
    chex.clear_trace_counter()
    monkeypatch.setattr(Distance, "prepare", chex.assert_max_traces(Distance.prepare, n=1))
    for seed, size in ((0, 1), (1, 1), (0, 2)):
        vector = np.full(3, size, np.float32)
        run(Linear(), OptimConfig(lr=0.2, accumulate=2), Distance(vector), seed=seed)
    with pytest.raises(AssertionError, match="'prepare' is traced > 1 times"):
        run(Linear(), OptimConfig(lr=0.2, accumulate=4), Distance(vector))
