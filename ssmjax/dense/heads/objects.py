"""What detectors learn from and what they find."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssmjax.dense.geometry.nms import best_of_classes

SCORE_THRESHOLD = 0.05  # Below it, nothing is found.
NMS_THRESHOLD = 0.5
DETECTIONS = 100  # Of an image, at most.


class Targets(NamedTuple):
    """The objects of a batch of images.

    Attributes:
      boxes: [B,G,4] float32, in pixels of the padded images.
      labels: [B,G] integers from 0.
      valid: [B,G] bool, false for padding.
      image_shapes: [B,2] integers, (height, width) of each image without its padding.
      padded_shapes: [B,2] integers, what each image was padded to before the batch was: anchors
        beyond are not learned from.
      masks: [B,G,height,width] bool or 0 and 1, of the batch's sides; None where no masks are
        learned.
      keys: [B] random keys, for the choice of the anchors and regions of each image that a
        Mask R-CNN learns from; None chooses evenly, see `ssmjax.dense.heads.sample.sample`.
    """

    boxes: jax.Array
    labels: jax.Array
    valid: jax.Array
    image_shapes: jax.Array
    padded_shapes: jax.Array
    masks: jax.Array | None = None
    keys: jax.Array | None = None


class Detections(NamedTuple):
    """What is found on each image, best first.

    Attributes:
      boxes: [B,n,4] float32, in pixels of the given images, inside them.
      scores: [B,n] float32.
      labels: [B,n] int32 from 0.
      valid: [B,n] bool, false where nothing more is found.
      masks: [B,n,S,S] float32, the probability in each part of the box, S being
        `ssmjax.dense.heads.mask_head.SIZE`; None if not asked for.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array
    masks: jax.Array | None = None


def suppressed(
    boxes: jax.Array, scores: jax.Array, labels: jax.Array, valid: jax.Array
) -> Detections:
    """What is left of the candidates of one image, [n,4] and [n]: without B, as for `jax.vmap`."""
    chosen, found = best_of_classes(boxes, scores, labels, valid, NMS_THRESHOLD, DETECTIONS)
    return Detections(boxes[chosen], jnp.where(found, scores[chosen], 0), labels[chosen], found)
