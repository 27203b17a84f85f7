"""Region proposal network (Ren et al. 2015, arXiv 1506.01497) on a feature pyramid."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.dense import losses
from ssmjax.dense.anchors import anchors, valid
from ssmjax.dense.assign import BACKGROUND, assign
from ssmjax.dense.boxes import decode, encode
from ssmjax.dense.conv_unit import ConvTower, convolution
from ssmjax.dense.losses import Term
from ssmjax.dense.nms import best, nms
from ssmjax.dense.objects import Targets
from ssmjax.dense.sample import sample

STRIDES = (4, 8, 16, 32, 64)
SCALES = (8,)
RATIOS = (0.5, 1.0, 2.0)
PER_CELL = len(SCALES) * len(RATIOS)
STDS = (1.0, 1.0, 1.0, 1.0)
POSITIVE, NEGATIVE, LEAST = 0.7, 0.3, 0.3  # See `ssmjax.dense.assign.assign`.
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


class Objectness(NamedTuple):
    """What is said of anchors, in the order of `ssmjax.dense.anchors.anchors`.

    Attributes:
      logits: [B,A] of each level, float32 (or wider).
      deltas: [B,A,4] of each level, alike.
      grids: (H, W) of each level.
    """

    logits: tuple[jax.Array, ...]
    deltas: tuple[jax.Array, ...]
    grids: tuple[tuple[int, int], ...]

    @property
    def anchors(self) -> list[np.ndarray]:
        """[A,4] of each level."""
        return anchors(self.grids, STRIDES, SCALES, RATIOS)


class RPN(nnx.Module):
    """Says of each anchor whether there is an object, and where exactly."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs, "kernel_init": nnx.initializers.normal(0.01)}
        self.tower = ConvTower(width, 1, **options)
        self.objectness = convolution(width, PER_CELL, 1, **options)
        self.deltas = convolution(width, PER_CELL * 4, 1, **options)

    def __call__(self, maps: Sequence[jax.Array]) -> Objectness:
        """Look at the five levels [B,H,W,width] of a feature pyramid."""
        logits, deltas = [], []
        for x in maps:
            B, x = len(x), self.tower(x)
            wide = jnp.promote_types(x.dtype, jnp.float32)
            logits.append(self.objectness(x).reshape(B, -1).astype(wide))
            deltas.append(self.deltas(x).reshape(B, -1, 4).astype(wide))
        grids = tuple((x.shape[1], x.shape[2]) for x in maps)
        return Objectness(tuple(logits), tuple(deltas), grids)


def rpn_losses(said: Objectness, targets: Targets, keys: jax.Array | None) -> tuple[Term, Term]:
    """Of a random sample of anchors: objectness and deltas, [levels] each.

    Both are over the number of sampled anchors, counting of each image at least one with an object
    and one without.

    Args:
      said: of the images.
      targets: their objects.
      keys: [B] random keys; None samples evenly, see `ssmjax.dense.sample.sample`.
    """
    levels = said.anchors
    boxes = jnp.asarray(np.concatenate(levels))
    level = np.repeat(np.arange(len(levels)), [len(a) for a in levels])

    def choose(objects, present, padded_shape, key):
        inside = jnp.concatenate(valid(padded_shape, said.grids, STRIDES, PER_CELL))
        assigned = assign(boxes, objects, present, POSITIVE, NEGATIVE, LEAST, inside)
        indices, chosen = sample(assigned, key, SAMPLED, MOST_POSITIVE)
        of_chosen = assigned[indices]
        objects = objects[jnp.maximum(of_chosen - 1, 0)]
        wanted = encode(boxes[indices], objects, STDS)
        return indices, chosen, chosen & (of_chosen > BACKGROUND), wanted

    indices, chosen, positive, wanted = jax.vmap(choose)(
        targets.boxes, targets.valid, targets.padded_shapes, keys
    )
    positives, others = positive.sum(axis=1), (chosen & ~positive).sum(axis=1)
    number = (jnp.maximum(positives, 1) + jnp.maximum(others, 1)).sum()
    logits = jnp.take_along_axis(jnp.concatenate(said.logits, axis=1), indices, axis=1)
    deltas = jnp.take_along_axis(jnp.concatenate(said.deltas, axis=1), indices[..., None], axis=1)
    at = jnp.asarray(level)[indices]
    per_level = [
        (
            losses.binary_cross_entropy(logits, positive, chosen & (at == i)),
            losses.l1(deltas, wanted, positive & (at == i)),
        )
        for i in range(len(levels))
    ]
    objectness, box = (Term(jnp.stack(each), number) for each in zip(*per_level, strict=True))
    return objectness, box


def proposals(said: Objectness, image_shapes: jax.Array, number: int, *, train: bool) -> Proposals:
    """The best boxes of images whose sides are `image_shapes` [B,2]; no gradient passes.

    They are P = `number` an image, of as many candidates of each level; with `train` of 2 P.
    """
    candidates = 2 * number if train else number

    def of_level(logits, deltas, boxes, image_shape):
        indices, chosen = best(logits, jnp.ones(logits.shape, bool), candidates)
        decoded = decode(jnp.asarray(boxes)[indices], deltas[indices], STDS, image_shape)
        chosen &= jnp.all(decoded[:, 2:] > decoded[:, :2], axis=1)
        return decoded, logits[indices], chosen

    def suppress(boxes, logits, present):
        return nms(boxes, logits, present, NMS_THRESHOLD)

    def of_image(logits, deltas, image_shape):
        levels = [
            of_level(*level, image_shape)
            for level in zip(logits, deltas, said.anchors, strict=True)
        ]
        # Suppression is apart for each level, of which all have as many candidates. They are ranked
        # by logits, since probabilities near 1 are all the same in float32.
        boxes, logits, present = (jnp.stack(each) for each in zip(*levels, strict=True))
        kept = jax.vmap(suppress)(boxes, logits, present)
        indices, chosen = best(logits.ravel(), kept.ravel(), number)
        scores = jax.nn.sigmoid(logits.ravel()[indices])
        return Proposals(boxes.reshape(-1, 4)[indices], scores, chosen)

    logits, deltas = lax.stop_gradient((said.logits, said.deltas))
    return jax.vmap(of_image)(logits, deltas, image_shapes)
