"""Feature pyramid network (Lin et al. 2017, arXiv 1612.03144), with batch norm."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.layers.conv_norm import ConvNorm

LEVELS = 5


class FPN(nnx.Module):
    """Maps of the backbone to five of one width, each of half the size of the one before.

    Levels beyond the backbone's are made from the level before: by a convolution with
    `extra_convs`, else by taking every second row and column.
    """

    def __init__(
        self, in_features: int, width: int, inputs: int, *, extra_convs: bool, **options: Any
    ):
        """`options` are `dtype` and `rngs`."""
        options |= {"kernel_init": nnx.initializers.xavier_uniform(), "activate": False}

        def unit(before: int, size: int, stride: int = 1) -> ConvNorm:
            return ConvNorm(before, width, size, stride, **options)

        self.laterals = nnx.List([unit(in_features, 1) for _ in range(inputs)])
        self.outputs = nnx.List([unit(width, 3) for _ in range(inputs)])
        extra = LEVELS - inputs if extra_convs else 0
        self.extra = nnx.List([unit(width, 3, stride=2) for _ in range(extra)])

    def __call__(self, maps: Sequence[jax.Array], *, train: bool = False) -> tuple[jax.Array, ...]:
        """[B,H/2^l,W/2^l,D] of the backbone, the finest first, to five [B,H/2^l,W/2^l,width].

        The latter are of the compute dtype.
        """
        merged = [
            lateral(x.astype(lateral.conv.dtype), train=train)
            for lateral, x in zip(self.laterals, maps, strict=True)
        ]
        for level in reversed(range(len(merged) - 1)):
            merged[level] = merged[level] + _doubled(merged[level + 1])
        levels = [output(x, train=train) for output, x in zip(self.outputs, merged, strict=True)]
        for conv in self.extra:
            levels.append(conv(levels[-1], train=train))
        while len(levels) < LEVELS:
            levels.append(levels[-1][:, ::2, ::2])
        return tuple(levels)


def _doubled(x: jax.Array) -> jax.Array:
    """Each cell four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
