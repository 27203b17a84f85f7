"""A small batch, a model that compiles at once, and a training step on them."""

import functools

import jax
import numpy as np
import optax
from flax import nnx

import ssmjax
from ssmjax.preprocess import Preprocessing
from train.config import AugmentConfig
from train.engine import optim
from train.engine.step import init_state, make_train_step
from train.tasks.classification.loss import ClassificationLoss

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
_RNG = np.random.default_rng(0)
BATCH = {
    "image": _RNG.integers(0, 256, (8, 16, 16, 3), np.uint8),
    "label": _RNG.integers(0, 3, 8).astype(np.int32),
}


constant = functools.cache(optax.constant_schedule)  # One object for equal rates, as in `optim`.


class Linear(nnx.Module):
    """A classifier with the call of a `Backbone`, and none of its insides."""

    breaks = ()

    def __init__(self):
        self.head = nnx.Linear(16 * 16 * 3, 3, rngs=nnx.Rngs(0))

    def __call__(self, images, *, train=False, key=None, remat=False):
        return self.head(images.reshape(len(images), -1))


def backbone(name="vim_tiny_patch16_224", **options):
    """A small model; Vim unless named otherwise."""
    sizes = {"depth": 2, "embed_dim": 16, "patch_size": 4, "img_size": 16, "num_classes": 3}
    inner = {"num_heads": 2} if name.startswith("deit") else {"d_state": 2}
    return ssmjax.create_model(name, **(sizes | inner | options))


def classify(config, augment=AugmentConfig(), teacher=None):
    """The loss of classification on `BATCH`."""
    split = () if teacher is None else nnx.split(teacher)
    return ClassificationLoss(config, augment, 3, Preprocessing(MEAN, STD), *split)


def start(model, config, loss=None, *, seed=0, place=lambda state: state):
    """The first state and the step; the learning rate stays as it is."""
    optimizer = optim.optimizer(config, constant(config.lr), model.breaks)
    state = place(init_state(model, optimizer))
    loss = classify(config) if loss is None else loss
    return state, make_train_step(model, optimizer, config, loss, jax.random.key(seed), state)


def run(model, config, loss=None, *, batch=BATCH, steps=3, **options):
    """The state after some steps on one batch, and the losses."""
    state, step = start(model, config, loss, **options)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses
