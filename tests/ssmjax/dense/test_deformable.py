"""Deformable attention against official numbers and against loops."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssmjax.dense.backbones.deformable import DeformableAttention, sample
from tests.oracles.compare import assert_close
from tests.ssmjax.dense import units

GRIDS = ((5, 3), (2, 4))
sampled = jax.jit(sample, static_argnums=3)


def looped(values, locations, weights, grids):
    """Query by query, point by point, neighbour by neighbour."""
    B, Q, M, levels, points = weights.shape
    starts = np.cumsum([0, *(h * w for h, w in grids)])
    out = np.zeros((B, Q, M, values.shape[-1]))
    for b, q, m, level, point in np.ndindex(B, Q, M, levels, points):
        h, w = grids[level]
        x, y = locations[b, q, m, level, point] * (w, h) - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < h and 0 <= column < w:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    cell = values[b, starts[level] + row * w + column, m]
                    out[b, q, m] += weights[b, q, m, level, point] * share * cell
    return out.reshape(B, Q, -1)


def case(dtype, grids=GRIDS, seed=0):
    draw = np.random.default_rng(seed)
    B, Q, M, points, cells = 2, 3, 2, 4, sum(h * w for h, w in grids)
    values = draw.normal(size=(B, cells, M, 3))
    locations = draw.uniform(-0.4, 1.4, (B, Q, M, len(grids), points, 2))
    weights = draw.normal(size=(B, Q, M, len(grids), points))
    return values.astype(dtype), locations.astype(dtype), weights.astype(dtype)


@pytest.mark.parametrize("unit", units.ALL)
def test_official(unit):
    sides = [int(side) for side in unit.numbers("msda.value")]
    grids = tuple(zip(sides[::2], sides[1::2], strict=True))
    arrays = {n: jnp.asarray(unit[f"msda.{n}"]) for n in ("value", "loc", "weights")}
    got = sampled(arrays["value"], arrays["loc"], arrays["weights"], grids)
    assert_close(got, unit["msda.out"], 2e-6)


@pytest.mark.parametrize("grids", [GRIDS, ((1, 1),), ((1, 6), (3, 1), (2, 2))])
def test_loops(grids):
    arrays = case(np.float64, grids)
    with jax.enable_x64(True):
        got = sampled(*arrays, grids)
    assert_close(got, looped(*arrays, grids), 1e-12)


@jax.jit
@jax.grad
def towards(arrays):
    values, locations, weights = arrays
    return jnp.sum(jnp.sin(sample(values, locations, weights, GRIDS)))


@pytest.mark.parametrize("which", range(3))
def test_gradients(which):
    arrays = case(np.float64)
    way = np.random.default_rng(9).normal(size=arrays[which].shape)
    step = 1e-6

    def moved(by):
        changed = list(arrays)
        changed[which] = changed[which] + by * way
        values, locations, weights = changed
        return looped(values, locations, weights, GRIDS)

    numeric = (moved(step) - moved(-step)) / (2 * step)
    with jax.enable_x64(True):
        gradient = towards(arrays)[which]
    want = np.sum(numeric * np.cos(looped(*arrays, GRIDS)))
    assert_close(np.sum(np.asarray(gradient) * way), want, 1e-6)


def test_far_locations_give_zero():
    values, locations, weights = case(np.float32)
    far = np.where(locations > 0.5, 1e12, -1e12).astype(np.float32)
    assert not np.asarray(sampled(values, far, weights, GRIDS)).any()


def test_first_values():
    attention = DeformableAttention(12, 3, 2, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert attention.offsets.bias is not None
    offsets = np.asarray(attention.offsets.bias[...]).reshape(3, 2, 4, 2)
    for head in range(3):
        angle = 2 * math.pi * head / 3
        way = np.array([math.cos(angle), math.sin(angle)])
        for level, point in np.ndindex(2, 4):
            want = (point + 1) * way / np.abs(way).max()
            chex.assert_trees_all_close(offsets[head, level, point], want, rtol=1e-7, atol=1e-6)
    for linear in (attention.offsets, attention.weights):
        assert not np.asarray(linear.kernel[...]).any()
    for linear in (attention.value, attention.output):
        limit = math.sqrt(6 / 24)
        largest = np.abs(np.asarray(linear.kernel[...])).max()
        assert 0.8 * limit < largest <= limit
