"""The loss of a batch that is worked through in parts is that of the batch as a whole."""

import chex
import jax
import numpy as np
import optax
import pytest

from ssmjax.dense.registry import create_model
from ssmjax.layers.norm import BatchNorm
from ssmjax.preprocess import Preprocessing
from train.config import OptimConfig
from train.engine import optim
from train.engine.step import init_state, make_train_step
from train.tasks.detection.loss import DetectionLoss
from train.tasks.segmentation.loss import SegmentationLoss

SIZES = {
    "depth": 2,
    "embed_dim": 16,
    "d_state": 2,
    "ends": (1, 2),
    "width": 16,
    "num_classes": 3,
    "drop_path_rate": 0.0,
    "dtype": "float64",
}
DETECTOR = {"heads": 2, "prior_width": 4}
MODELS = {
    "retinanet_plainmamba_l1": DETECTOR,
    "maskrcnn_plainmamba_l1": DETECTOR | {"hidden": 16, "proposals": 40, "samples": 32},
    "upernet_plainmamba_l1": {"auxiliary_width": 16, "dropout": 0.0},
}
NORMALISED = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OBJECTS = (3, 0, 1, 2)  # Of each image: parts of a batch have different numbers.
SIDE = 64


def batch_of(name):
    rng, B = np.random.default_rng(0), len(OBJECTS)
    sides = np.full((B, 2), SIDE, np.int32)
    batch = {"image": rng.integers(0, 256, (B, SIDE, SIDE, 3), np.uint8), "img_shape": sides}
    if name.startswith("upernet"):
        label = rng.integers(0, 3, (B, SIDE, SIDE)).astype(np.uint8)
        for image, ignored in zip(label, (60, 0, 20, 40), strict=True):
            image[:ignored] = 255
        return batch | {"label": label}
    corners = rng.uniform(0, 24, (B, max(OBJECTS), 2))
    boxes = np.concatenate([corners, corners + rng.uniform(16, 40, corners.shape)], axis=-1)
    batch |= {
        "pad_shape": sides,
        "gt_boxes": boxes.astype(np.float32),
        "gt_labels": rng.integers(0, 3, boxes.shape[:2]).astype(np.int32),
        "gt_valid": np.arange(max(OBJECTS)) < np.array(OBJECTS)[:, None],
    }
    if name.startswith("maskrcnn"):
        masks = rng.integers(0, 2, (*boxes.shape[:2], SIDE, SIDE), np.uint8)
        batch["gt_masks"] = np.packbits(masks, axis=-1)
    return batch


def stepped(name, parts):
    """Loss and gradient of a step, these as Adam's first average has them."""
    kind = SegmentationLoss if name.startswith("upernet") else DetectionLoss
    config = OptimConfig(batch_size=4, accumulate=parts, clip=None)
    model = create_model(name, **SIZES, **MODELS[name])
    optimizer = optim.optimizer(config, optax.constant_schedule(1e-3))
    state, loss = init_state(model, optimizer), kind(NORMALISED, remat=False)
    step = make_train_step(model, optimizer, config, loss, jax.random.key(0), state)
    state, told = step(state, batch_of(name))
    return told["loss"], optax.tree.get(state.opt_state, "mu")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_do_not_hang_on_the_parts(name, monkeypatch):
    """With stored statistics: those of a batch are, as in PyTorch, those of each part."""
    stored = lambda norm, x, mask: (norm.mean[...], norm.var[...])  # noqa: E731
    monkeypatch.setattr(BatchNorm, "_update", stored)
    with jax.enable_x64(True):
        whole, grads = stepped(name, 1)
        assert whole > 0.1 and optax.tree.norm(grads) > 1e-3
        for parts in (2, 4):
            loss, of_parts = stepped(name, parts)
            chex.assert_trees_all_close(loss, whole, rtol=1e-5)
            chex.assert_trees_all_close(of_parts, grads, rtol=1e-4, atol=1e-6)
