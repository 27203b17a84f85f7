"""Images to tokens; `options` are those of Flax's convolutions: `dtype` and `rngs`."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.conv_norm import ConvNorm

STEM_FEATURES = 64
STEM_SIZES = (7, 3)  # Of the first convolution and of those after it.


class PatchEmbed(nnx.Module):
    """Convolution of `patch_size` moved by `stride`, without padding; patches in raster order."""

    def __init__(self, in_channels: int, features: int, patch_size: int, stride: int, **options):
        size = patch_size, patch_size
        self.proj = nnx.Conv(in_channels, features, size, stride, padding="VALID", **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B,height,width,channels] to [B,H*W,D]."""
        x = self.proj(images)
        return x.reshape(x.shape[0], -1, x.shape[-1])


class StemPatchEmbed(PatchEmbed):
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
        **options,
    ):
        first = ConvNorm(in_channels, STEM_FEATURES, STEM_SIZES[0], 2, **options)
        unit = partial(ConvNorm, STEM_FEATURES, STEM_FEATURES, STEM_SIZES[1], 1, **options)
        self.stem = nnx.List([first, *(unit() for _ in range(stem_convs))])
        self.size, self.stride = patch_size // 2, stride // 2
        super().__init__(STEM_FEATURES, features, self.size, self.stride, **options)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """[B,height,width,channels] to [B,H*W,D]."""
        x = images
        for layer in self.stem:
            x = layer(x, train=train)
        size, step = self.size, self.stride
        missing = [max((-(-side // step) - 1) * step + size - side, 0) for side in x.shape[1:3]]
        return super().__call__(jnp.pad(x, ((0, 0), *((0, m) for m in missing), (0, 0))))
