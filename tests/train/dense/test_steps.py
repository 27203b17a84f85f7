"""Training steps of small detectors and segmentors, with the options that a step has."""

import chex
import pytest

from tests.devices import said_on

# Run with two devices. Says of each run the losses of its steps, and how the last state lies.
STEPS = """
import json, sys
import jax, numpy as np
from ssmjax.dense.retinanet import UNUSED
from tests.train.small import constant
from train import devices
from train.config import Config, ModelConfig, OptimConfig
from train.data.dense.config import DetectionData, SegmentationData
from train.engine.optim import keys
from train.engine.step import init_state, make_train_step
from train.tasks.task import open_task

devices.SPREAD_FROM = 64
NAME, CLASSES = sys.argv[1], ("ant", "bee", "cup")
SIZES = {"depth": 2, "embed_dim": 16, "d_state": 2, "ends": (1, 2), "width": 16}
data = SegmentationData(class_names=CLASSES, scale=(64, 64), crop=(64, 64))
if NAME == "retinanet":
    data, SIZES = DetectionData(scale=(64, 64), shapes=((64, 64),)), SIZES | {"heads": 2}

def batch_of(task, model):
    "Noise; of detection with an object on half of the images of each part."
    rng = np.random.default_rng(0)
    batch = {name: np.zeros(a.shape, a.dtype) for name, a in task.step_batch(model).items()}
    batch["image"] = rng.integers(0, 256, batch["image"].shape, np.uint8)
    for name in batch.keys() & {"img_shape", "pad_shape"}:
        batch[name][:] = 64
    if NAME == "retinanet":
        batch["gt_boxes"][:2, 0], batch["gt_valid"][:2, 0] = (8, 8, 48, 40), True
    else:
        batch["label"] = rng.integers(0, 3, batch["label"].shape).astype(np.uint8)
    return batch

def named(state):
    leaves = jax.tree.leaves_with_path(state)
    return {".".join(keys(path)): np.asarray(leaf) for path, leaf in leaves}

def run(fsdp=False, dtype=None, **options):
    "Two steps; of two images each part."
    chosen = OptimConfig(lr=1e-2, batch_size=4, weight_decay=0.5, **options)
    model = ModelConfig(f"{NAME}_plainmamba_l1", dtype=dtype, **SIZES)
    task = open_task(Config(model, data, chosen))
    model, metadata = task.start(CLASSES)
    optimizer, mesh = task.optimizer(model, constant(1e-2)), devices.make_mesh()
    state = init_state(model, optimizer)
    first = named(state.params), named(state.statistics)
    if fsdp:
        state = devices.place_state(state, mesh, fsdp)
    wanted = [a.sharding for a in jax.tree.leaves(state)]
    batch = batch_of(task, model)
    batch = devices.place_batch(batch, mesh) if fsdp else batch
    loss, losses, averaged = task.loss(model, metadata), [], None
    step = make_train_step(model, optimizer, chosen, loss, jax.random.key(0), state)
    for number in range(2):
        state, told = step(state, batch)
        assert int(told["skipped_in_a_row"]) == 0
        losses.append(float(told["loss"]))
        # As `train.engine.step` says: the first steps count fully.
        decay = min(options.get("ema", 0), (1 + number) / (10 + number))
        params = named(state.params)
        before = first[0] if averaged is None else averaged
        averaged = {n: before[n] + (1 - decay) * (params[n] - before[n]) for n in params}
    found = named(state.averaged)
    off = max(np.max(np.abs(found[n] - averaged[n])) for n in averaged)
    still = sorted(name for name in params if (params[name] == first[0][name]).all())
    moved = named(state.statistics)
    return params, {
        "losses": losses,
        "average off": float(off),
        "still": still,
        "held": sorted(name for name in moved if (moved[name] == first[1][name]).all()),
        "zeros": sorted(name for name in params if not first[0][name].any()),
        "dtypes": sorted({str(a.dtype) for a in jax.tree.leaves(state.params)}),
        "kept": [a.sharding for a in jax.tree.leaves(state)] == wanted,
        "spread": sum(not sharding.is_fully_replicated for sharding in wanted),
    }

plain, said = run()
one = {"one": said}
_, one["many"] = run(fsdp=True, remat=True, ema=0.9)
_, one["parts"] = run(fsdp=True, dtype="bfloat16", accumulate=2, remat=True, ema=0.9)
one["unused"] = [n for n in plain if n.startswith(tuple(f"{part}." for part in UNUSED))]
print(json.dumps(one))
"""


@pytest.fixture(scope="module", params=["retinanet", "upernet"])
def found(request):
    name = request.param
    return said_on(STEPS, name, devices=2) | {"name": name}


@pytest.mark.slow
def test_options(found):
    """Spread over devices, recomputing, averaging; in parts and bfloat16."""
    one, many, parts = (found[name] for name in ("one", "many", "parts"))
    chex.assert_trees_all_close(many["losses"], one["losses"], rtol=1e-4)
    # Batch norms see one part at a time.
    chex.assert_trees_all_close(parts["losses"], one["losses"], rtol=0.05)
    for said in (one, many, parts):
        assert said["dtypes"] == ["float32"] and said["kept"] and said["average off"] < 1e-6
    assert one["held"] == many["held"] == []  # All running statistics move.
    assert one["spread"] == 0 and min(many["spread"], parts["spread"]) > 30


@pytest.mark.slow
def test_what_gets_no_gradient_stays_as_it_is(found):
    """Of RetinaNet, whose head leaves the finest map out; weight decay alone would move it."""
    if found["name"] != "retinanet":
        assert found["one"]["still"] == []
        return
    for run in ("one", "many", "parts"):
        still = set(found[run]["still"])
        assert len(found["unused"]) == 6 and still >= set(found["unused"])
        # Others do decay, even where an attention that is 0 at first keeps the gradient from them.
        others = still - set(found["unused"]) - set(found[run]["zeros"])
        assert not {name for name in others if name.endswith("kernel")}
