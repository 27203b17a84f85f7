"""Region proposal network (Ren et al. 2015, arXiv 1506.01497) on a feature pyramid."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.dense.geometry.anchors import Anchors
from ssmjax.dense.geometry.boxes import decode, encode
from ssmjax.dense.geometry.nms import best, nms
from ssmjax.dense.heads import losses
from ssmjax.dense.heads.anchor_head import AnchorPredictions, predict
from ssmjax.dense.heads.assign import BACKGROUND, assign
from ssmjax.dense.heads.losses import Term
from ssmjax.dense.heads.objects import Targets
from ssmjax.dense.heads.sample import sample
from ssmjax.layers.conv_bias import ConvTower, convolution

ANCHORS = Anchors(strides=(4, 8, 16, 32, 64), scales=(8,), ratios=(0.5, 1.0, 2.0))
STDS = (1.0, 1.0, 1.0, 1.0)
POSITIVE, NEGATIVE, LEAST = 0.7, 0.3, 0.3  # See `ssmjax.dense.heads.assign.assign`.
SAMPLED, MOST_POSITIVE = 256, 128  # Anchors of an image that are learned from.
NMS_THRESHOLD = 0.7


class Proposals(NamedTuple):
    """Boxes that may hold an object, best first.

    Attributes:
      boxes: [B,P,4] float32, inside the images.
      scores: [B,P] float32.
      valid: [B,P] bool.
    """

    boxes: jax.Array
    scores: jax.Array
    valid: jax.Array


class RPN(nnx.Module):
    """Says of each anchor whether there is an object, and where exactly."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs, "kernel_init": nnx.initializers.normal(0.01)}
        self.tower = ConvTower(width, 1, **options)
        self.objectness = convolution(width, ANCHORS.per_cell, 1, **options)
        self.deltas = convolution(width, 4 * ANCHORS.per_cell, 1, **options)

    def __call__(self, maps: Sequence[jax.Array]) -> AnchorPredictions:
        """Objectness and deltas of the five levels [B,H,W,width] of a feature pyramid."""

        def of_level(x):
            B, x = len(x), self.tower(x)
            return self.objectness(x).reshape(B, -1), self.deltas(x).reshape(B, -1, 4)

        return predict(of_level, maps)


def rpn_losses(
    predicted: AnchorPredictions, targets: Targets, keys: jax.Array | None
) -> tuple[Term, Term]:
    """Losses of a random sample of anchors: objectness and deltas, whose totals are [levels].

    Both are over the number of sampled anchors, counting of each image at least one with an object
    and one without.

    Args:
      predicted: objectness and deltas for the anchors of the images.
      targets: their objects.
      keys: [B] random keys; None samples evenly, see `ssmjax.dense.heads.sample.sample`.
    """
    levels = ANCHORS.boxes(predicted.grids)
    boxes = jnp.asarray(np.concatenate(levels))
    level = np.repeat(np.arange(len(levels)), [len(a) for a in levels])

    def choose(objects, present, padded_shape, key):
        inside = jnp.concatenate(ANCHORS.valid(padded_shape, predicted.grids))
        assigned = assign(boxes, objects, present, POSITIVE, NEGATIVE, LEAST, inside)
        indices, chosen = sample(assigned, key, SAMPLED, MOST_POSITIVE)
        of_chosen = assigned[indices]
        objects = objects[jnp.maximum(of_chosen - 1, 0)]
        target_deltas = encode(boxes[indices], objects, STDS)
        return indices, chosen, chosen & (of_chosen > BACKGROUND), target_deltas

    indices, chosen, positive, target_deltas = jax.vmap(choose)(
        targets.boxes, targets.valid, targets.padded_shapes, keys
    )
    positives, others = positive.sum(axis=1), (chosen & ~positive).sum(axis=1)
    number = (jnp.maximum(positives, 1) + jnp.maximum(others, 1)).sum()
    logits = jnp.take_along_axis(jnp.concatenate(predicted.logits, axis=1), indices, axis=1)
    deltas = jnp.concatenate(predicted.deltas, axis=1)
    deltas = jnp.take_along_axis(deltas, indices[..., None], axis=1)
    at = jnp.asarray(level)[indices]
    per_level = [
        (
            losses.binary_cross_entropy(logits, positive, chosen & (at == i)),
            losses.l1(deltas, target_deltas, positive & (at == i)),
        )
        for i in range(len(levels))
    ]
    objectness, box = (Term(jnp.stack(each), number) for each in zip(*per_level, strict=True))
    return objectness, box


def proposals(
    predicted: AnchorPredictions, image_shapes: jax.Array, number: int, *, train: bool
) -> Proposals:
    """The best boxes of images whose sides are `image_shapes` [B,2]; no gradient passes.

    They are P = `number` an image, of as many candidates of each level; with `train` of 2 P.
    """
    candidates = 2 * number if train else number
    anchors = ANCHORS.boxes(predicted.grids)

    def of_level(logits, deltas, boxes, image_shape):
        indices, chosen = best(logits, jnp.ones(logits.shape, bool), candidates)
        decoded = decode(jnp.asarray(boxes)[indices], deltas[indices], STDS, image_shape)
        chosen &= jnp.all(decoded[:, 2:] > decoded[:, :2], axis=1)
        return decoded, logits[indices], chosen

    def of_image(logits, deltas, image_shape):
        levels = [
            of_level(*level, image_shape) for level in zip(logits, deltas, anchors, strict=True)
        ]
        # Suppression is apart for each level, of which all have as many candidates. They are ranked
        # by logits, since probabilities near 1 are all the same in float32.
        boxes, logits, present = (jnp.stack(each) for each in zip(*levels, strict=True))
        kept = jax.vmap(partial(nms, threshold=NMS_THRESHOLD))(boxes, logits, present)
        indices, chosen = best(logits.ravel(), kept.ravel(), number)
        scores = jax.nn.sigmoid(logits.ravel()[indices])
        return Proposals(boxes.reshape(-1, 4)[indices], scores, chosen)

    logits, deltas = lax.stop_gradient((predicted.logits, predicted.deltas))
    return jax.vmap(of_image)(logits, deltas, image_shapes)
