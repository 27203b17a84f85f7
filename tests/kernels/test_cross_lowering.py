"""Every size of the models and every dtype lowers for CUDA, on a machine without a GPU."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import sharding

from kernels import selective_scan
from kernels.bench.suites import BATCHES, KEPT, PLAIN_MAMBA, VIM
from tests.marks import slow_unless

DTYPES = ("float32", "bfloat16")
# Every E at every batch and with every number of tokens, dtypes in turn; quickly each of them once.
SIZES = [
    slow_unless(i == j, (batch, (197, *KEPT)[(i + j) % 4], channels, 16, DTYPES[(i + j // 2) % 2]))
    for i, batch in enumerate(BATCHES)
    for j, channels in enumerate(sorted({*VIM.values(), *PLAIN_MAMBA.values()}))
]
SIZES += [
    slow_unless(False, (2, tokens, 768, 16, dtype)) for tokens in (4096, 16384) for dtype in DTYPES
]
SIZES += [(3, 50, 100, 33, "float32"), (1, 2, 1, 1, "bfloat16")]


def h200():
    """Newer versions of JAX want to be told what they lower for."""
    if not hasattr(sharding, "AbstractDevice"):
        return nullcontext()
    device = sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="cuda")
    return sharding.use_abstract_mesh(sharding.AbstractMesh((), (), abstract_device=device))


def kernels_in(function, *arguments, backend: str = "triton") -> int:
    with h200():
        lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",))
    return sum(backend in line for line in lowered.as_text().splitlines())


def arguments(batch, tokens, channels, states, dtype):
    shapes = {
        "u": (batch, tokens, channels),
        "delta": (batch, tokens, channels),
        "A": (channels, states),
        "B": (batch, tokens, states),
        "C": (batch, tokens, states),
        "D": (channels,),
        "z": (batch, tokens, channels),
        "delta_bias": (channels,),
    }
    small = ("A", "D", "delta_bias")
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32 if name in small else dtype)
        for name, shape in shapes.items()
    }, jax.ShapeDtypeStruct((batch, tokens), jnp.int32)


def loss(arrays, positions, implementation="pallas_triton", **options):
    y: Any = selective_scan(
        **arrays,
        positions=positions,
        delta_softplus=True,
        implementation=implementation,
        **options,
    )
    return y.sum()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward_and_gradient(size):
    arrays, positions = arguments(*size)
    assert kernels_in(loss, arrays, positions) == 1
    assert kernels_in(jax.grad(loss), arrays, positions) == 2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mosaic_forward(size):
    scan = partial(loss, implementation="pallas_mosaic", reverse=size[0] == 1)
    assert kernels_in(scan, *arguments(*size), backend="@mosaic_gpu") == 1


def test_mosaic_gradient_is_that_of_triton():
    scan = jax.value_and_grad(partial(loss, implementation="pallas_mosaic"))
    given = arguments(2, 197, 768, 16, "bfloat16")
    assert kernels_in(scan, *given, backend="@mosaic_gpu") == 1
    assert kernels_in(scan, *given) == 2


def test_four_paths_in_one_launch():
    """As PlainMamba scans: an order, B and positions of each path, everything else shared."""
    arrays, positions = arguments(64, 197, 384, 16, "bfloat16")
    paths = {
        "B": jax.ShapeDtypeStruct((4, *arrays["B"].shape), arrays["B"].dtype),
        "order": jax.ShapeDtypeStruct((4, *positions.shape), jnp.int32),
    }
    positions = jax.ShapeDtypeStruct((4, *positions.shape), positions.dtype)

    def all_paths(arrays, B, order, positions):
        along = jax.vmap(lambda B, order, p: loss(arrays | {"B": B}, p, order=order))
        return along(B, order, positions).sum()

    given = arrays, paths["B"], paths["order"], positions
    assert kernels_in(all_paths, *given) == 1
    assert kernels_in(all_paths, *given, backend="stablehlo.gather") == 0
    assert kernels_in(jax.grad(all_paths, (0, 1)), *given) == 2
