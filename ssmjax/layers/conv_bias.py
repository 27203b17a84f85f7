"""Convolutions with bias, as heads have them; those with batch norm are `ConvNorm`.

`options` are those of Flax's convolutions: `dtype`, `rngs` and `kernel_init`.
"""

import math
from typing import Any

import jax
from flax import nnx


def fan_out_normal(size: int, features: int) -> nnx.Initializer:
    """Normal with variance 2 / (outputs that one input of a `size` x `size` convolution reaches).

    `features` are the convolution's output channels by groups, 1 for a depthwise one.
    """
    return nnx.initializers.normal(math.sqrt(2 / (size * size * features)))


def convolution(
    in_features: int, features: int, size: int, *, bias: float = 0.0, **options: Any
) -> nnx.Conv:
    """A convolution that keeps the sides of maps, with bias, which is `bias` at first."""
    start = nnx.initializers.constant(bias)
    return nnx.Conv(in_features, features, (size, size), bias_init=start, **options)


def doubling(features: int, **options: Any) -> nnx.ConvTranspose:
    """A transposed 2x2 convolution, with bias, that doubles the sides of maps."""
    options |= {"strides": (2, 2), "padding": "VALID", "transpose_kernel": True}
    return nnx.ConvTranspose(features, features, (2, 2), **options)


class ConvTower(nnx.Module):
    """Some 3x3 convolutions of one width, each followed by ReLU."""

    def __init__(self, width: int, depth: int, **options: Any):
        self.convs = nnx.List([convolution(width, width, 3, **options) for _ in range(depth)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,width] to [B,H,W,width] of the compute dtype."""
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x
