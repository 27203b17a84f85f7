"""Images to tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.conv_norm import ConvNorm

STEM_FEATURES = 64
STEM_SIZES = (7, 3)  # Of the first convolution and of those after it.


class PatchEmbed(nnx.Module):
    """Convolution of `patch_size` moved by `stride`, without padding; patches in raster order."""

    def __init__(
        self, in_channels: int, features: int, patch_size: int, stride: int, *, dtype, rngs
    ):
        self.proj = nnx.Conv(
            in_channels,
            features,
            kernel_size=(patch_size, patch_size),
            strides=stride,
            padding="VALID",
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B,height,width,channels] to [B,H*W,D]."""
        x = self.proj(images)
        return x.reshape(x.shape[0], -1, x.shape[-1])


class StemPatchEmbed(nnx.Module):
    """PlainMamba's patches: a stem at half resolution, then a convolution of patch_size / 2.

    Zeros are added at the bottom and the right, so that every pixel is used ("corner" padding).
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        patch_size: int,
        stride: int,
        stem_convs: int,
        *,
        dtype,
        rngs,
    ):
        first = ConvNorm(in_channels, STEM_FEATURES, STEM_SIZES[0], 2, dtype=dtype, rngs=rngs)
        more = [
            ConvNorm(STEM_FEATURES, STEM_FEATURES, STEM_SIZES[1], 1, dtype=dtype, rngs=rngs)
            for _ in range(stem_convs)
        ]
        self.stem = nnx.List([first, *more])
        self.proj = nnx.Conv(
            STEM_FEATURES,
            features,
            kernel_size=(patch_size // 2, patch_size // 2),
            strides=stride // 2,
            padding="VALID",
            dtype=dtype,
            rngs=rngs,
        )
        self.patch_size, self.stride = patch_size, stride

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """[B,height,width,channels] to [B,H*W,D]; `train` is that of `BatchNorm`."""
        x = images
        for layer in self.stem:
            x = layer(x, train=train)
        size, step = self.patch_size // 2, self.stride // 2
        missing = [max((-(-side // step) - 1) * step + size - side, 0) for side in x.shape[1:3]]
        x = self.proj(jnp.pad(x, ((0, 0), *((0, m) for m in missing), (0, 0))))
        return x.reshape(x.shape[0], -1, x.shape[-1])
