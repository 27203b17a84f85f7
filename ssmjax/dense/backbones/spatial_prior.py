"""Spatial prior: a small convolutional pyramid beside the trunk."""

from functools import partial
from typing import Any

import jax
from flax import nnx

from ssmjax.layers.conv_bias import convolution, fan_out_normal
from ssmjax.layers.conv_norm import ConvNorm


class SpatialPrior(nnx.Module):
    """Convolutional features at strides 4, 8, 16 and 32 (ViT-Adapter, arXiv 2205.08534)."""

    def __init__(self, in_channels: int, width: int, features: int, *, dtype, rngs: nnx.Rngs):
        """`width` is P, of the first convolutions; `features` is D, of what comes out."""
        options = {"dtype": dtype, "rngs": rngs}

        def unit(before: int, after: int, stride: int) -> ConvNorm:
            init = fan_out_normal(3, after)
            return ConvNorm(before, after, 3, stride, kernel_init=init, **options)

        self.stem = nnx.List(
            [unit(in_channels, width, 2), unit(width, width, 1), unit(width, width, 1)]
        )
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.stages = nnx.List([unit(widths[i], widths[i + 1], 2) for i in range(3)])
        init = fan_out_normal(1, features)
        project = partial(convolution, features=features, size=1, kernel_init=init, **options)
        self.projections = nnx.List([project(before) for before in widths])

    def __call__(self, images: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        """[B,height,width,channels] to four maps [B,height/s,width/s,D], s being 4, 8, 16 and 32.

        All are of the compute dtype; height and width are multiples of 32.
        """
        x = images
        for unit in self.stem:
            x = unit(x, train=train)
        around: Any = ((1, 1), (1, 1))  # Flax takes it, and says that it takes a string.
        maps = [nnx.max_pool(x, (3, 3), strides=(2, 2), padding=around)]
        for unit in self.stages:
            maps.append(unit(maps[-1], train=train))
        return tuple(project(x) for project, x in zip(self.projections, maps, strict=True))
