"""The unit of convolutional stems and heads."""

from typing import Any

import jax
from flax import nnx

from ssmjax.layers.norm import BatchNorm


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, and ReLU unless told not to `activate`."""

    def __init__(
        self,
        in_features: int,
        features: int,
        size: int,
        stride: int,
        *,
        activate: bool = True,
        **options: Any,
    ):
        """`options` are those of `nnx.Conv`: `dtype`, `rngs` and `kernel_init`."""
        options |= {"strides": stride, "padding": size // 2, "use_bias": False}
        self.conv = nnx.Conv(in_features, features, (size, size), **options)
        self.norm = BatchNorm(features)
        self.activate = activate

    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """[B,height,width,channels] to [B,H,W,features]; the rest is that of `BatchNorm`."""
        x = self.norm(self.conv(x), train=train, mask=mask)
        return jax.nn.relu(x) if self.activate else x
