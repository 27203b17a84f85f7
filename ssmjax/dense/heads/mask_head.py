"""The mask of the object in each region (He et al. 2017, arXiv 1703.06870)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.dense.geometry.masks import mask_targets
from ssmjax.dense.heads import losses
from ssmjax.dense.heads.box_head import Regions
from ssmjax.layers.conv_bias import ConvTower, convolution, doubling, fan_out_normal
from ssmjax.precision import widened

BINS = 14
SIZE = 2 * BINS  # Of a mask.
CONVS = 4


class MaskHead(nnx.Module):
    """Convolutions, then a transposed one, to one mask per class."""

    def __init__(self, width: int, num_classes: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.tower = ConvTower(width, CONVS, kernel_init=fan_out_normal(3, width), **options)
        self.up = doubling(width, kernel_init=fan_out_normal(2, width), **options)
        init = fan_out_normal(1, num_classes)
        self.masks = convolution(width, num_classes, 1, kernel_init=init, **options)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[B,R,BINS,BINS,width] to logits [B,R,SIZE,SIZE,num_classes] in float32 (or wider)."""
        B, R = features.shape[:2]
        x = self.tower(features.reshape(B * R, *features.shape[2:]))
        x = widened(self.masks(jax.nn.relu(self.up(x))))
        return x.reshape(B, R, *x.shape[1:])


def mask_loss(
    logits: jax.Array, masks: jax.Array, sides: jax.Array, sampled: Regions
) -> losses.Term:
    """Cross entropy in the channel of each object's class, over the regions with an object.

    Args:
      logits: [B,R,SIZE,SIZE,num_classes] of the regions.
      masks: [B,G,height,width] of the objects.
      sides: [B,2] integers, (height, width) of each image with its own padding.
      sampled: the regions.
    """
    targets = jax.vmap(partial(mask_targets, bins=SIZE))
    of_regions = targets(masks, sampled.objects, sampled.boxes, sides)
    return losses.mask(logits, of_regions, sampled.labels, sampled.positive)


def probabilities(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B,R,SIZE,SIZE] of masks of the classes `labels` [B,R]; logits have num_classes besides."""
    own = jnp.take_along_axis(logits, labels[..., None, None, None], axis=-1)
    return jax.nn.sigmoid(own[..., 0])
