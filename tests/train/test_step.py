"""The optimiser and the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ssmjax
from train import optim
from train.config import Config, OptimConfig
from train.step import init_state, make_train_step

BATCH = {
    "image": np.random.default_rng(0).standard_normal((4, 8, 8, 3), np.float32),
    "label": np.array([0, 1, 2, 1], np.int32),
}


def model(name="vim_tiny_patch16_224", **options):
    sizes = {"depth": 2, "embed_dim": 16, "d_state": 2, "patch_size": 4, "img_size": 8}
    return ssmjax.create_model(name, num_classes=3, **sizes, **options)


def params_of(model):
    return nnx.state(model, nnx.Param)


def test_decay_acts_on_matrices_and_kernels_only():
    mask = nnx.to_flat_state(optim.decay_mask(params_of(model())))
    decayed = {".".join(map(str, path)) for path, leaf in mask if jax.tree.leaves(leaf)[0]}
    branches = [f"blocks.mixer.{direction}" for direction in ("forward", "backward")]
    names = [f"{b}.{p}" for b in branches for p in ("conv.kernel", "x_proj.kernel", "dt_kernel")]
    names += ["blocks.mixer.in_proj.kernel", "blocks.mixer.out_proj.kernel"]
    assert decayed == {*names, "head.kernel", "patch_embed.proj.kernel"}


def test_schedule():
    config = OptimConfig(lr=1.0, min_lr=0.1, epochs=4, warmup_epochs=1)
    rate = optim.schedule(config, 10)
    got = [float(rate(step)) for step in (0, 5, 10, 25, 40, 50)]
    np.testing.assert_allclose(got, [0, 0.5, 1, 0.55, 0.1, 0.1], atol=1e-6)


def test_step_is_adamw_on_the_smoothed_loss_and_averages():
    config = OptimConfig(lr=1e-2, label_smoothing=0.2, ema=0.9, clip=1e9, weight_decay=0.0)
    graphdef, params = nnx.split(model())
    optimizer = optim.optimizer(config, optim.schedule(config, 10))

    def loss_of(params):
        logp = jax.nn.log_softmax(nnx.merge(graphdef, params)(BATCH["image"]))
        target = 0.8 * np.eye(3)[BATCH["label"]] + 0.2 / 3
        return -jnp.mean(jnp.sum(target * logp, axis=-1))

    want_loss, grads = jax.value_and_grad(loss_of)(params)
    # AdamW's first step is the sign of the gradient, where the gradient is not tiny.
    moved = jax.tree.map(lambda p, g: p - 1e-2 * g / (jnp.abs(g) + 1e-8), params, grads)
    start = jax.tree.map(np.array, params)
    state, metrics = make_train_step(model(), optimizer, config, jax.random.key(0))(
        init_state(params, optimizer), BATCH
    )
    np.testing.assert_allclose(metrics["loss"], want_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-4)
    weight = 1 - 1 / 10  # The average starts short, at decay (1 + 0) / (10 + 0).
    leaves = zip(*map(jax.tree.leaves, (state.params, moved, state.averaged, start)), strict=True)
    for got, want, averaged, before in leaves:
        np.testing.assert_allclose(got, want, atol=2e-4)
        np.testing.assert_allclose(averaged, before + weight * (got - before), atol=1e-6)


def test_pruned_model_trains_and_keys_matter_only_where_they_act():
    config = OptimConfig(lr=1e-2)
    prune = ssmjax.PruneConfig((1,), 0.5, importance="random")
    losses = {}
    for key in (0, 0, 1):
        pruned = model(prune=prune)
        optimizer = optim.optimizer(config, optim.schedule(config, 10))
        step = make_train_step(pruned, optimizer, config, jax.random.key(key))
        state = init_state(params_of(pruned), optimizer)
        run = []
        for _ in range(3):
            state, metrics = step(state, BATCH)
            run.append(float(metrics["loss"]))
        assert losses.setdefault(key, run) == run
    assert losses[0] != losses[1]
    assert losses[0][2] < losses[0][0]


def test_distillation_pulls_towards_the_teacher():
    config = OptimConfig(lr=1e-2, weight_decay=0.0, distill=1.0)
    teacher = model(seed=1)
    student = model(seed=2)
    optimizer = optim.optimizer(config, optax.constant_schedule(config.lr))
    step = make_train_step(student, optimizer, config, jax.random.key(0), teacher)
    state = init_state(params_of(student), optimizer)
    said = np.asarray(teacher(BATCH["image"]), np.float64)
    p, q = (
        np.exp(x / 2) / np.exp(x / 2).sum(-1, keepdims=True)
        for x in (said, np.asarray(model(seed=2)(BATCH["image"]), np.float64))
    )
    state, metrics = step(state, BATCH)
    divergence = 4 * np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1))
    np.testing.assert_allclose(metrics["loss"], divergence, rtol=1e-3)
    for _ in range(60):
        state, metrics = step(state, BATCH)
    assert metrics["loss"] < 0.1 * divergence


@pytest.mark.parametrize("name", ["vim_tiny_patch16_224", "plainmamba_l1"])
def test_learns_a_batch_by_heart(name):
    config = OptimConfig(lr=1e-2, weight_decay=0.0)
    pupil = model(name, prune=ssmjax.PruneConfig((1,), 0.5))
    optimizer = optim.optimizer(config, optax.constant_schedule(config.lr))
    step = make_train_step(pupil, optimizer, config, jax.random.key(0))
    state = init_state(params_of(pupil), optimizer)
    for _ in range(60):
        state, metrics = step(state, BATCH)
    assert metrics["loss"] < 0.05


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optim": OptimConfig(epochs=0)}, "optim.epochs is 0"),
        ({"optim": OptimConfig(batch_size=-1)}, "optim.batch_size is -1"),
        ({"optim": OptimConfig(warmup_epochs=2.0)}, "below optim.epochs"),
        ({"optim": OptimConfig(ema=1.0)}, "optim.ema is 1.0"),
        ({"optim": OptimConfig(label_smoothing=1.0)}, "label_smoothing is 1.0"),
        ({"optim": OptimConfig(distill=0.5)}, "without a model to follow"),
        ({"log_every": 0}, "log_every is 0"),
    ],
)
def test_bad_values(fields, said):
    with pytest.raises(ValueError, match=said):
        Config(**fields)
