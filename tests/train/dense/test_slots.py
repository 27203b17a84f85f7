"""How many slots for objects a batch has changes no loss."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssmjax.dense.heads.box_head import regions
from ssmjax.dense.heads.objects import Targets
from ssmjax.dense.heads.rpn import Proposals
from tests.train.small import constant
from train.config import Config, ModelConfig, OptimConfig
from train.data.dense.config import DetectionData
from train.engine.step import init_state, make_train_step
from train.tasks.task import open_task

SLOTS = (2, 8, 16)


def padded(array, slots):
    """With rows that mean nothing behind the two objects."""
    return jnp.asarray(np.pad(array, [(0, slots - 2), *[(0, 0)] * (array.ndim - 1)]))


@pytest.mark.parametrize("key", [None, jax.random.key(4)])
def test_regions_are_the_same(key):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (2, 2)).astype(np.float32)
    objects = np.concatenate([corners, corners + 30], axis=1)
    near = objects[rng.integers(0, 2, 60)] + rng.normal(0, 4, (60, 4))
    far = rng.uniform(0, 40, (60, 4)) + [0, 0, 60, 60]
    boxes = jnp.asarray(np.concatenate([near, far]), jnp.float32)
    proposals = Proposals(boxes, jnp.zeros(120), jnp.ones(120, bool))
    chosen = jax.jit(partial(regions, num_classes=5, samples=32))
    found = []
    for slots in SLOTS:
        rows = [padded(a, slots) for a in (objects, np.array([3, 1]), np.ones(2, bool))]
        targets = Targets(*rows, *[jnp.full(2, 128, jnp.int32)] * 2)
        found.append(chosen(proposals, targets, key))
    assert int(found[0].positive.sum()) == 8 and int(found[0].valid.sum()) == 32
    for other in found[1:]:
        chex.assert_trees_all_equal(other, found[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "maskrcnn"])
def test_losses_are_the_same(name):
    sizes = {"depth": 2, "embed_dim": 16, "d_state": 2, "ends": (1, 2), "width": 16, "heads": 2}
    model = ModelConfig(f"{name}_plainmamba_l1", **sizes)
    data = DetectionData(scale=(64, 64), shapes=((64, 64),))
    task = open_task(Config(model, data, OptimConfig(batch_size=2, clip=None)))
    model, metadata = task.start(("ant", "bee", "cup"))
    optimizer, loss = task.optimizer(model, constant(1e-3)), task.loss(model, metadata)
    key, config = jax.random.key(1), task.config.optim

    rng, found = np.random.default_rng(0), []
    image = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    masks = rng.integers(0, 256, (2, 64, 8), np.uint8)
    for slots in SLOTS:
        batch = {
            "image": image,
            "img_shape": np.full((2, 2), 64, np.int32),
            "pad_shape": np.full((2, 2), 64, np.int32),
            "gt_boxes": np.zeros((2, slots, 4), np.float32),
            "gt_labels": np.zeros((2, slots), np.int32),
            "gt_valid": np.zeros((2, slots), bool),
        }
        batch["gt_boxes"][0, :2] = (8, 8, 48, 40), (20, 4, 60, 60)
        batch["gt_labels"][0, :2], batch["gt_valid"][0, :2] = (2, 1), True
        if name == "maskrcnn":
            batch["gt_masks"] = np.zeros((2, slots, 64, 8), np.uint8)
            batch["gt_masks"][0, :2] = masks
        state = init_state(model, optimizer)
        _, told = make_train_step(model, optimizer, config, loss, key, state)(state, batch)
        found.append({name: float(told[name]) for name in ("loss", "grad_norm")})
    assert min(found[0].values()) > 0
    for other in found[1:]:
        chex.assert_trees_all_close(other, found[0], rtol=1e-5)
