"""Batch norms of PlainMamba in training, against statistics in float64."""

import functools

import chex
import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssmjax import PruneConfig
from ssmjax.convert.load import to_torch_state_dict
from tests.devices import said_on
from tests.oracles.plain_mamba_oracle import DENSE, plain_mamba
from tests.oracles.vim_oracle import Prune
from tests.train.small import MEAN, STD, backbone, start
from train.config import OptimConfig

PARTS = {  # Of the official name of an array of a batch norm.
    "running_mean": 0,
    "running_var": 1,
}


@functools.cache
def small(**options):
    chosen = {"depth": 1, "dwconv_blocks": (0,)} | options
    return backbone("plainmamba_l1", stem_convs=1, **chosen)


def batches(steps, size=8):
    rng = np.random.default_rng(5)
    for _ in range(steps):
        # Each image has a brightness of its own, so that statistics hang on which ones are seen.
        bright = rng.uniform(0, 128, (size, 1, 1, 3))
        images = rng.uniform(0, 127, (size, 16, 16, 3)) + bright
        labels = rng.integers(0, 3, size).astype(np.int32)
        yield {"image": images.astype(np.uint8), "label": labels}


def followed(model, config, *, devices=1, steps=20, prune=DENSE, skip=()):
    """(statistics after some steps, what float64 makes of the parameters before each), by name.

    The second moves by the images that it ought to: those of the first device in each part.
    """
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    on = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))  # noqa: E731
    state, step = start(model, config, place=lambda state: jax.device_put(state, on()))
    graphdef, _, _, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)

    def official(state):
        model = nnx.merge(graphdef, state.params, state.statistics, others, copy=True)
        return to_torch_state_dict(model)

    names = [n for n in official(state) if n.endswith((*PARTS, "num_batches_tracked"))]
    want = {name: np.float64(official(state)[name]) for name in names}
    for number, batch in enumerate(batches(steps)):
        before, pixels = official(state), batch["image"].astype(np.float32)
        if number in skip:
            pixels[-1, 0, 0, 0] = np.inf
        else:
            images = (pixels.astype(np.float64) / 255 - MEAN) / STD
            for part in range(config.accumulate):
                rows = images[part :: config.accumulate]
                shares = devices if config.batch_norm == "device" else 1
                seen = {}
                plain_mamba(before, rows[: len(rows) // shares], prune, seen=seen)
                for name in names:
                    prefix, kind = name.rsplit(".", 1)
                    if kind in PARTS:
                        want[name] += 0.1 * (seen[f"{prefix}."][PARTS[kind]] - want[name])
                    else:
                        want[name] += 1
        batch = jax.device_put(batch | {"image": pixels}, on("data"))
        state, _ = step(state, batch)
    return {name: np.float64(official(state)[name]) for name in names}, want, (state, step, batch)


def check(got, want):
    assert len(got) == len(want) == 9  # Three norms: two of the stem, one after a block.
    chex.assert_trees_all_close(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("batch_norm", [pytest.param("device", marks=pytest.mark.slow), "batch"])
def test_statistics_after_20_steps(batch_norm):
    """On one device there is no difference."""
    got, want, _ = followed(small(), OptimConfig(lr=1e-2, batch_norm=batch_norm))
    check(got, want)
    assert got["backbone.layers.0.dw.1.num_batches_tracked"] == 20


@pytest.mark.slow
def test_each_part_of_a_batch_moves_them_and_a_skipped_step_does_not():
    """Those of frozen parts move as well, and the average of parameters is not asked."""
    config = OptimConfig(lr=1e-2, accumulate=2, ema=0.9, frozen=("patch_embed",))
    got, want, _ = followed(small(), config, steps=4, skip=(1, 2))
    check(got, want)
    assert got["backbone.layers.0.dw.1.num_batches_tracked"] == 4


@pytest.mark.slow
def test_empty_cells_do_not_count():
    """Of a depthwise block after pruning."""
    prune = {"after_blocks": (1,), "keep_ratio": 0.5}
    model = small(depth=2, prune=PruneConfig(**prune), dwconv_blocks=(1,))
    got, want, _ = followed(model, OptimConfig(lr=1e-3), steps=2, prune=Prune(**prune))
    check(got, want)


DEVICES = """
import json, re
import chex, jax, numpy as np
from tests.train.test_batch_norms import followed, small
from train.config import OptimConfig

said = {}
for name, options in (
    ("device", {}), ("batch", {"batch_norm": "batch"}), ("parts", {"accumulate": 2, "remat": True})
):
    steps = 4 if name == "parts" else 20
    got, want, made = followed(small(), OptimConfig(lr=1e-2, **options), devices=2, steps=steps)
    said[name] = [{k: v.tolist() for k, v in tree.items()} for tree in (got, want)]
    if name == "device":
        state, step, batch = made
        text = jax.jit(step).lower(state, batch).compile().as_text()
        said["travels"] = re.findall(
            r"\\[([0-9,]*)\\][^ ]* (?:all-gather|all-to-all|collective-permute)[(]", text
        )
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def on_two_devices():
    return said_on(DEVICES, devices=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["device", "batch", "parts"])
def test_statistics_on_two_devices(on_two_devices, name):
    got, want = ({k: np.array(v) for k, v in tree.items()} for tree in on_two_devices[name])
    check(got, want)


@pytest.mark.slow
def test_the_choice_matters_on_two_devices(on_two_devices):
    device, batch = (on_two_devices[name][0] for name in ("device", "batch"))
    name = "backbone.patch_embed.stem.1.running_mean"
    assert np.abs(np.subtract(device[name], batch[name])).max() > 1e-2


@pytest.mark.slow
def test_no_activations_travel(on_two_devices):
    """Of what goes from one device to the other, nothing is larger than statistics of two."""
    for shape in on_two_devices["travels"]:
        assert np.prod([int(n) for n in shape.split(",") if n]) <= 2 * 64, shape
