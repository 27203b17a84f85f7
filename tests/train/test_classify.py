"""Classification: the loss of real models, against numpy."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ssmjax
from tests.train.small import BATCH, MEAN, STD, Linear, backbone, classify, run, start
from train.augment.erase import erase
from train.augment.mix import mix
from train.config import AugmentConfig, OptimConfig


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def normalised():
    return ((BATCH["image"] / 255 - MEAN) / STD).astype(np.float32)


def test_prepared_images_are_normalised_and_targets_smoothed():
    got = classify(OptimConfig(label_smoothing=0.3)).prepare(BATCH, jax.random.key(0))
    chex.assert_type(got["image"], jnp.float32)
    chex.assert_trees_all_close(got["image"], normalised(), rtol=1e-7, atol=1e-5)
    want = 0.1 + 0.7 * np.eye(3)[BATCH["label"]]
    chex.assert_trees_all_close(got["target"], want, rtol=1e-7, atol=1e-6)


def test_photos_are_erased_before_they_are_mixed():
    augment = AugmentConfig(erase=0.7, mixup=0.8, cutmix=1.0)
    key = jax.random.key(3)
    got = classify(OptimConfig(), augment).prepare(BATCH, key)
    erase_key, mix_key = jax.random.split(key)
    erased = erase(erase_key, normalised(), 0.7)
    images, targets = mix(mix_key, erased, np.eye(3)[BATCH["label"]], mixup=0.8, cutmix=1.0)
    chex.assert_trees_all_close(got["image"], images, rtol=1e-7, atol=1e-5)
    chex.assert_trees_all_close(got["target"], targets, rtol=1e-7, atol=1e-6)


def test_loss_is_the_cross_entropy_of_smoothed_targets():
    _, (loss,) = run(Linear(), OptimConfig(label_smoothing=0.2), steps=1)
    target = 0.8 * np.eye(3)[BATCH["label"]] + 0.2 / 3
    logp = log_softmax(Linear()(normalised()))
    chex.assert_trees_all_close(loss, -np.mean(np.sum(target * logp, axis=-1)), rtol=1e-5)


compiled_or_not: Any = chex.variants(with_jit=True, without_jit=True)


class TestVariants(chex.TestCase):
    """Compiled, and step by step."""

    variant: Any  # Chex declares that it only raises.

    @compiled_or_not
    def test_gradient_of_the_cross_entropy(self):
        loss = classify(OptimConfig(label_smoothing=0.2))
        graphdef, params = nnx.split(Linear())

        def mean(params, batch, key):
            prepared = loss.prepare(batch, key)
            total, number = loss(nnx.merge(graphdef, params), prepared, key)["loss"]
            return total / number

        value, grads = self.variant(jax.value_and_grad(mean))(params, BATCH, jax.random.key(0))
        chex.assert_shape(value, ())
        chex.assert_type([value, *jax.tree.leaves(grads)], jnp.float32)
        logp = log_softmax(Linear()(normalised()))
        target = 0.8 * np.eye(3)[BATCH["label"]] + 0.2 / 3
        chex.assert_trees_all_close(value, -np.mean(np.sum(target * logp, axis=-1)), rtol=1e-5)
        away = (np.exp(logp) - target) / len(logp)
        want = {"kernel": normalised().reshape(len(away), -1).T @ away, "bias": away.sum(axis=0)}
        for name, gradient in want.items():
            chex.assert_trees_all_close(grads["head"][name][...], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_distillation_is_the_divergence_from_the_teacher_on_the_same_images(share):
    config = OptimConfig(lr=0.01, distill=share)
    augment = AugmentConfig(mixup=0.8)
    teacher = Linear()
    teacher.head.kernel[...] = -2 * teacher.head.kernel[...]
    loss = classify(config, augment, teacher)
    prepared = loss.prepare(BATCH, jax.random.key(0))
    total, number = loss(Linear(), prepared, jax.random.key(1))["loss"]
    got = total / number
    said, logits = (np.asarray(m(prepared["image"]), np.float64) for m in (teacher, Linear()))
    p, q = log_softmax(said / 2), log_softmax(logits / 2)
    divergence = 4 * np.mean(np.sum(np.exp(p) * (p - q), axis=-1))
    entropy = -np.mean(np.sum(prepared["target"] * log_softmax(logits), axis=-1))
    chex.assert_trees_all_close(got, (1 - share) * entropy + share * divergence, rtol=1e-5)


PRUNE = ssmjax.PruneConfig((1,), 0.5, importance="random")
EVIT = ssmjax.PruneConfig((1,), 0.5, importance="attention", reduction="fuse")


@pytest.mark.slow
def test_pruned_model_trains_and_keys_matter_only_where_they_act():
    pruned, losses = backbone(prune=PRUNE, drop_path_rate=0.4), {}
    for seed in (0, 0, 1):
        _, each = run(pruned, OptimConfig(lr=1e-2), seed=seed)
        assert losses.setdefault(seed, each) == each
    assert losses[0] != losses[1]
    _, each = run(pruned, OptimConfig(lr=1e-2, remat=True))
    chex.assert_trees_all_close(each, losses[0], rtol=1e-5)


@pytest.mark.slow
def test_a_block_pruned_inside_trains_the_same_with_rematerialisation():
    vit = backbone("deit_tiny_patch16_224", prune=EVIT, drop_path_rate=0.4)
    plain, again = (run(vit, OptimConfig(lr=1e-2, remat=remat))[1] for remat in (False, True))
    assert plain[2] < plain[0]
    chex.assert_trees_all_close(again, plain, rtol=1e-5)


def test_bfloat16_computes_and_float32_stays():
    state, step = start(backbone(dtype="bfloat16"), OptimConfig(accumulate=2))
    told = jax.eval_shape(step, state, BATCH)
    chex.assert_type([a for a in jax.tree.leaves(told) if a.ndim], jnp.float32)
    chex.assert_type([told[1]["loss"], told[1]["grad_norm"]], jnp.float32)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vim_tiny_patch16_224", {"prune": PRUNE}),
        ("plainmamba_l1", {"dwconv_blocks": (0,)}),
        ("deit_tiny_patch16_224", {"prune": EVIT}),
    ],
)
def test_rematerialisation_keeps_less_for_the_backward_pass(name, options):
    model = nnx.eval_shape(lambda: backbone(name, depth=4, **options))
    graphdef, *state = nnx.split(model, nnx.Param, ...)

    def kept(remat):
        loss = classify(OptimConfig(remat=remat))

        def backward(params, rest):
            def value(params):
                model = nnx.merge(graphdef, params, rest, copy=True)
                return loss(model, part, jax.random.key(0))

            return jax.vjp(value, params)[1]

        part = loss.prepare(BATCH, jax.random.key(0))
        return sum(a.size for a in jax.tree.leaves(jax.eval_shape(backward, *state)))

    assert kept(True) < 0.5 * kept(False)
