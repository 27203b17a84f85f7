"""What XLA makes of the scan: memory, and communication under a sharded batch."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from kernels import selective_scan
from tests.devices import said_on

B, K, E, N = 2, 128, 64, 16

NAMES = ("reference", "associative", "pallas_triton")
# Run with four devices: collectives of the output and of all gradients of each implementation, when
# the batch is sharded.
SHARDED = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from functools import partial
from kernels import selective_scan
from kernels.selective_scan import IMPLEMENTATIONS, pallas_triton

IMPLEMENTATIONS["pallas_triton"] = partial(pallas_triton.scan, interpret=True)
mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
by_image = NamedSharding(mesh, PartitionSpec("batch"))
everywhere = NamedSharding(mesh, PartitionSpec())

def example(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=by_image if len(shape) > 1 else everywhere)

tokens, states = (8, 20, 12), (8, 20, 3)
A = jax.ShapeDtypeStruct((12, 3), jnp.float32, sharding=everywhere)
arrays = [example(tokens), example(tokens), A, example(states), example(states)]
arrays += [example((12,)), example(tokens)]
positions = example((8, 20), jnp.int32)

def scan(implementation, positions, *arrays):
    return selective_scan(
        *arrays, delta_softplus=True, positions=positions, implementation=implementation
    )

def gradients(implementation, positions, *arrays):
    return jax.grad(lambda *a: (scan(implementation, positions, *a) ** 2).sum(), range(7))(*arrays)

names = ("all-gather", "all-to-all", "collective-permute", "all-reduce")
counts = {}
for implementation in sys.argv[1:]:
    counts[implementation] = []
    for function in (scan, gradients):
        lowered = jax.jit(function, static_argnums=0).lower(implementation, positions, *arrays)
        text = lowered.compile().as_text()
        counts[implementation].append({name: text.count(f" {name}(") for name in names})
print(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def collectives():
    return said_on(SHARDED, *NAMES, devices=4)


@pytest.mark.parametrize("implementation", NAMES)
def test_a_sharded_batch_is_not_gathered(collectives, implementation):
    """Only the gradients of shared parameters travel."""
    forward, backward = collectives[implementation]
    assert set(forward.values()) == {0}
    assert backward.pop("all-reduce") > 0 and set(backward.values()) == {0}


def test_the_default_stores_nothing_of_the_size_of_all_states():
    def loss(u, delta, A, b, c):
        y: Any = selective_scan(u, delta, A, b, c)
        return jnp.sum(y**2)

    shapes = [(B, K, E), (B, K, E), (E, N), (B, K, N), (B, K, N)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    needed = jax.jit(jax.grad(loss, range(5))).lower(*arrays).compile().memory_analysis()
    assert needed and needed.temp_size_in_bytes < 0.6 * (4 * B * K * E * N)
