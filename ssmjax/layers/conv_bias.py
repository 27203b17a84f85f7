"""Convolutions with bias, as heads have them; those with batch norm are `ConvNorm`."""

import math

import jax
from flax import nnx


def fan_out_normal(size: int, features: int) -> nnx.Initializer:
    """Normal with variance 2 / (outputs that one input of a `size` x `size` convolution reaches).

    `features` are the convolution's output channels by groups, 1 for a depthwise one.
    """
    return nnx.initializers.normal(math.sqrt(2 / (size * size * features)))


def convolution(
    in_features: int,
    features: int,
    size: int,
    *,
    dtype,
    rngs: nnx.Rngs,
    kernel_init: nnx.Initializer,
    bias: float = 0.0,
) -> nnx.Conv:
    """A convolution that keeps the sides of maps, with bias, which is `bias` at first."""
    return nnx.Conv(
        in_features,
        features,
        kernel_size=(size, size),
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=nnx.initializers.constant(bias),
        rngs=rngs,
    )


def doubling(
    features: int, *, dtype, rngs: nnx.Rngs, kernel_init: nnx.Initializer
) -> nnx.ConvTranspose:
    """A transposed 2x2 convolution, with bias, that doubles the sides of maps."""
    return nnx.ConvTranspose(
        features,
        features,
        kernel_size=(2, 2),
        strides=(2, 2),
        padding="VALID",
        transpose_kernel=True,
        dtype=dtype,
        kernel_init=kernel_init,
        rngs=rngs,
    )


class ConvTower(nnx.Module):
    """Some 3x3 convolutions of one width, each followed by ReLU."""

    def __init__(
        self, width: int, depth: int, *, dtype, rngs: nnx.Rngs, kernel_init: nnx.Initializer
    ):
        self.convs = nnx.List(
            [
                convolution(width, width, 3, dtype=dtype, rngs=rngs, kernel_init=kernel_init)
                for _ in range(depth)
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,width] to [B,H,W,width] of the compute dtype."""
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x
