"""The training step where batch and state are spread over devices: the same, and kept so."""

import chex
import pytest

from tests.devices import said_on

pytestmark = pytest.mark.slow

# Run with four devices: three steps on one of them, on all with a copy of the state on each, and
# with the state spread out as well. Says the losses, how the arrays lie, and what travels.
STEPS = """
import json
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tests.train.small import BATCH, Linear, backbone, classify, run, start
from train.config import AugmentConfig, OptimConfig

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
on = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))
batch = jax.device_put(BATCH, on("data"))
augment = AugmentConfig(erase=0.5, mixup=0.8, cutmix=1.0)

def split(array):
    "The last axis that four devices can share."
    axes = [i for i, size in enumerate(array.shape) if size % 4 == 0]
    return on(*[None] * axes[-1], "data") if axes else on()

def copies(state):
    return jax.device_put(state, on())

def shares(state):
    return jax.device_put(state, jax.tree.map(split, state))

said = {}
follow = OptimConfig(lr=1e-2, accumulate=2, ema=0.9, distill=0.5)
label = OptimConfig(lr=1e-2, accumulate=2)
for name, model, config, loss, places in (
    ("linear", Linear(), follow, classify(follow, augment, Linear()), (copies, shares)),
    ("vim", backbone(drop_path_rate=0.3), label, classify(label), (shares,)),
):
    state, losses = run(model, config, loss)
    one = [np.asarray(a) for a in jax.tree.leaves(state.params)]
    said[name] = {"one": losses}
    for put in places:
        wanted = [a.sharding for a in jax.tree.leaves(put(state))]
        got, losses = run(model, config, loss, batch=batch, place=put)
        pairs = zip(jax.tree.leaves(got.params), one, strict=True)
        said[name][put.__name__] = {
            "losses": losses,
            "off": float(max(np.max(np.abs(np.asarray(a) - b)) for a, b in pairs)),
            "kept": [a.sharding for a in jax.tree.leaves(got)] == wanted,
            "spread": sum(not sharding.is_fully_replicated for sharding in wanted),
        }

config = OptimConfig(accumulate=2)
state, step = start(Linear(), config, place=copies)
text = jax.jit(step).lower(state, batch).compile().as_text()
names = ("all-gather", "all-to-all", "collective-permute", "all-reduce")
said["travels"] = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in names}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def found():
    return said_on(STEPS, devices=4)


@pytest.mark.parametrize(
    ("model", "place"), [("linear", "copies"), ("linear", "shares"), ("vim", "shares")]
)
def test_steps_are_those_of_one_device_and_the_state_stays_spread(found, model, place):
    said = found[model][place]
    chex.assert_trees_all_close(said["losses"], found[model]["one"], rtol=1e-5)
    assert said["off"] < 1e-4
    assert said["kept"]
    assert (said["spread"] > 3) == (place == "shares")


def test_parts_of_a_batch_are_taken_where_they_lie(found):
    travels = found["travels"]
    assert travels.pop("all-reduce") > 0
    assert set(travels.values()) == {0}
