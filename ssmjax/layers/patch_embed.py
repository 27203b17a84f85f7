"""Images to tokens."""

import jax
from flax import nnx


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
