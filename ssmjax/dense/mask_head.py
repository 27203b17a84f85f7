"""The mask of the object in each region (He et al. 2017, arXiv 1703.06870)."""

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.dense import losses
from ssmjax.dense.conv_unit import ConvTower, convolution, doubling
from ssmjax.dense.masks import mask_targets
from ssmjax.dense.spatial_prior import fan_out_normal
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
    logits: jax.Array,
    masks: jax.Array,
    sides: jax.Array,
    boxes: jax.Array,
    objects: jax.Array,
    labels: jax.Array,
    positive: jax.Array,
) -> losses.Term:
    """Cross entropy in the channel of each object's class.

    Args:
      logits: [B,R,SIZE,SIZE,num_classes].
      masks: [B,G,height,width] of the objects.
      sides: [B,2] integers, (height, width) of each image with its own padding.
      boxes: [B,R,4] the regions.
      objects: [B,R] which object each is of.
      labels: [B,R] its class.
      positive: [B,R] bool, the regions to learn from.
    """
    targets = jax.vmap(mask_targets)(masks, objects, boxes, sides)
    return losses.mask(logits, targets, labels, positive)


def probabilities(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B,R,SIZE,SIZE,num_classes] to those of the classes `labels` [B,R]: [B,R,SIZE,SIZE]."""
    own = jnp.take_along_axis(logits, labels[..., None, None, None], axis=-1)
    return jax.nn.sigmoid(own[..., 0])
