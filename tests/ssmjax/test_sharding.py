"""Every strategy where the batch is spread over devices: the same tokens, and no image travels."""

import pytest

from ssmjax.pruning.strategies import STRATEGIES
from tests.devices import said_on

# Run with four devices, each with two of eight images: all strategies in one program, dropping and
# merging. Says which collectives it has, and of each whether its result stays spread and is right.
STAGES = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ssmjax import PruneConfig
from ssmjax.pruning.geometry import Geometry
from ssmjax.pruning.reduce import Present, reduce_tokens
from ssmjax.pruning.strategies import STRATEGIES
from ssmjax.pruning.stream import Stream

mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
by_image = NamedSharding(mesh, PartitionSpec("batch"))
key, other = jax.random.split(jax.random.key(0))
features = jax.random.normal(key, (8, 17, 6))
positions = jnp.broadcast_to(jnp.arange(17, dtype=jnp.int32), (8, 17))

def stage(importance, reduction, features, positions):
    attention = STRATEGIES[importance].needs == "attention"
    return reduce_tokens(
        PruneConfig((1,), 0.5, importance=importance, reduction=reduction),
        Present(Stream(features), positions, None), 8, Geometry((4, 4), 8),
        signal=features[:, :, 0] if attention else features, key=other,
    )

@jax.jit
def stages(*tokens):
    return {
        f"{importance}, {reduction}": stage(importance, reduction, *tokens)
        for importance in STRATEGIES for reduction in ("drop", "merge")
    }

spread = [jax.device_put(array, by_image) for array in (features, positions)]
text = stages.lower(*spread).compile().as_text()
names = ("all-gather", "all-to-all", "collective-permute", "all-reduce")
said = {"collectives": {name: text.count(f" {name}(") for name in names}}
got, want = stages(*spread), stages(features, positions)
for name in want:
    shards = got[name].positions.addressable_shards
    said[name] = {
        "spread": [shard.data.shape for shard in shards] == [(2, 9)] * 4,
        "same": bool(np.array_equal(got[name].positions, want[name].positions))
        and bool(np.allclose(got[name].stream[0], want[name].stream[0], atol=1e-6)),
    }
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def found():
    return said_on(STAGES, devices=4)


@pytest.mark.parametrize("reduction", ["drop", "merge"])
@pytest.mark.parametrize("importance", STRATEGIES)
def test_each_device_reduces_its_own_images(found, importance, reduction):
    assert found[f"{importance}, {reduction}"] == {"spread": True, "same": True}


def test_no_image_travels(found):
    assert set(found["collectives"].values()) == {0}
