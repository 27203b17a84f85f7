"""Training steps of small detectors and segmentors."""

import jax
import numpy as np
import pytest

from ssmjax.dense.retinanet import UNUSED
from train.config import Config, ModelConfig, OptimConfig
from train.data.dense_config import DetectionData, SegmentationData
from train.optim import keys, schedule
from train.step import init_state, make_train_step
from train.tasks.task import open_task

SIZES = {"depth": 2, "embed_dim": 16, "d_state": 2, "ends": (1, 2), "width": 16}
CLASSES = ("ant", "bee", "cup")


def task_of(name, optim, **model):
    """A task whose images have 64 x 64 pixels."""
    if name == "upernet":
        data = SegmentationData(class_names=CLASSES, scale=(64, 64), crop=(64, 64))
    else:
        data, model = DetectionData(scale=(64, 64), shapes=((64, 64),)), {"heads": 2} | model
    chosen = ModelConfig(f"{name}_plainmamba_l1", **SIZES, **model)
    return open_task(Config(chosen, data, optim))


def batch_of(task, model):
    """Noise, and on each image one object of its first class."""
    rng = np.random.default_rng(0)
    batch = {name: np.zeros(a.shape, a.dtype) for name, a in task.step_batch(model).items()}
    batch["image"] = rng.integers(0, 256, batch["image"].shape, np.uint8)
    for name in batch.keys() & {"img_shape", "pad_shape"}:
        batch[name][:] = 64
    if "label" in batch:
        batch["label"] = rng.integers(0, 3, batch["label"].shape).astype(np.uint8)
    else:
        batch["gt_boxes"][:, 0], batch["gt_valid"][:, 0] = (8, 8, 48, 40), True
    return batch


def run(task, steps, place=lambda tree: tree):
    """The state before and after some steps on one batch, as numpy, and what the last one told."""
    model, metadata = task.start(CLASSES)
    optimizer = task.optimizer(model, schedule(task.config.optim, 10))
    state, told = place(init_state(model, optimizer)), {}
    before = jax.tree.map(np.array, state)
    loss = task.loss(model, metadata)
    step = make_train_step(model, optimizer, task.config.optim, loss, jax.random.key(0), state)
    for _ in range(steps):
        state, told = step(state, batch_of(task, model))
    return before, jax.tree.map(np.array, state), told


def named(state):
    return {".".join(keys(path)): leaf for path, leaf in jax.tree.leaves_with_path(state)}


@pytest.mark.slow
def test_what_gets_no_gradient_stays_as_it_is():
    """Of RetinaNet, whose head leaves the finest map out; weight decay alone would move it."""
    task = task_of("retinanet", OptimConfig(lr=1e-2, batch_size=2, weight_decay=0.5))
    before, after, _ = run(task, 1)
    first = named(before.params)
    still = {name for name, array in named(after.params).items() if (array == first[name]).all()}
    unused = {name for name in first if name.startswith(tuple(f"{part}." for part in UNUSED))}
    assert len(unused) == 6 and unused <= still
    # Others do decay, even where an attention that is 0 at first keeps the gradient from them.
    assert not {name for name in still - unused if name.endswith("kernel") and first[name].any()}
    moved = named(after.statistics)
    for name in ("mean", "var", "count"):
        place = f"backbone.norms.0.{name}"
        assert (moved[place] != named(before.statistics)[place]).all()
