"""The unit of convolutional stems and heads."""

import jax
from flax import nnx

from ssmjax.layers.norm import BatchNorm

KERNEL_INIT = nnx.initializers.lecun_normal()


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, and ReLU unless told not to `activate`."""

    def __init__(
        self,
        in_features: int,
        features: int,
        size: int,
        stride: int,
        *,
        dtype,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer = KERNEL_INIT,
        activate: bool = True,
    ):
        self.conv = nnx.Conv(
            in_features,
            features,
            kernel_size=(size, size),
            strides=stride,
            padding=size // 2,
            use_bias=False,
            dtype=dtype,
            kernel_init=kernel_init,
            rngs=rngs,
        )
        self.norm = BatchNorm(features)
        self.activate = activate

    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """[B,height,width,channels] to [B,H,W,features]; the rest is that of `BatchNorm`."""
        x = self.norm(self.conv(x), train=train, mask=mask)
        return jax.nn.relu(x) if self.activate else x
