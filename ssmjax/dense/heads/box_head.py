"""The second stage of Faster R-CNN: what is in each region, and where exactly."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ssmjax.dense.geometry.boxes import decode, encode
from ssmjax.dense.heads import losses
from ssmjax.dense.heads.assign import BACKGROUND, IGNORED, assign
from ssmjax.dense.heads.losses import Term
from ssmjax.dense.heads.objects import SCORE_THRESHOLD, Detections, Targets, suppressed
from ssmjax.dense.heads.rpn import Proposals
from ssmjax.dense.heads.sample import sample
from ssmjax.layers.conv_bias import fan_out_normal
from ssmjax.layers.conv_norm import ConvNorm
from ssmjax.precision import widened

BINS = 7
CONVS = 4
STDS = (0.1, 0.1, 0.2, 0.2)
OVERLAP = 0.5  # IoU with an object from which a region is to find it.


class Regions(NamedTuple):
    """Regions to learn from, those with an object first.

    Attributes:
      boxes: [B,R,4] float32.
      valid: [B,R] bool.
      positive: [B,R] bool, those with an object; the first quarter at most.
      objects: [B,R] int32, which one.
      labels: [B,R] integers, its class; without one, the number of classes.
      deltas: [B,R,4] float32, to it.
    """

    boxes: jax.Array
    valid: jax.Array
    positive: jax.Array
    objects: jax.Array
    labels: jax.Array
    deltas: jax.Array


class BoxHead(nnx.Module):
    """Convolutions with batch norm over all regions of the batch, then linear layers."""

    def __init__(self, width: int, hidden: int, num_classes: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        xavier, normal = nnx.initializers.xavier_uniform(), nnx.initializers.normal
        unit = partial(ConvNorm, width, width, 3, 1, kernel_init=fan_out_normal(3, width))
        self.convs = nnx.List([unit(**options) for _ in range(CONVS)])
        self.hidden = nnx.Linear(BINS * BINS * width, hidden, kernel_init=xavier, **options)
        self.classes = nnx.Linear(hidden, num_classes + 1, kernel_init=normal(0.01), **options)
        self.deltas = nnx.Linear(hidden, num_classes * 4, kernel_init=normal(0.001), **options)

    def __call__(
        self, features: jax.Array, valid: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Look at regions by their features [B,R,BINS,BINS,width].

        The statistics of batch norms leave out those that are not `valid` [B,R].

        Returns:
          [B,R,num_classes+1] logits, the last of the background, and [B,R,num_classes,4] deltas,
          in float32 (or wider).
        """
        B, R = valid.shape
        x = features.reshape(B * R, *features.shape[2:])
        for conv in self.convs:
            x = conv(x, train=train, mask=valid.ravel())
        x = jax.nn.relu(self.hidden(x.reshape(B, R, -1)))
        return widened(self.classes(x)), widened(self.deltas(x)).reshape(B, R, -1, 4)


def regions(
    found: Proposals, targets: Targets, key: jax.Array | None, *, num_classes: int, samples: int
) -> Regions:
    """The regions of one image to learn from, its objects' own boxes among them.

    All arrays are without B, as for `jax.vmap`.

    Args:
      found: what the first stage proposes.
      targets: the objects.
      key: random key; None samples evenly, see `ssmjax.dense.heads.sample.sample`.
      num_classes: without the background.
      samples: R.
    """
    objects, valid = targets.boxes, targets.valid
    assigned = assign(found.boxes, objects, valid, OVERLAP, OVERLAP, OVERLAP, found.valid)
    own = jnp.where(valid, 1 + jnp.arange(len(objects)), IGNORED)
    boxes, assigned = (jnp.concatenate(a) for a in ((objects, found.boxes), (own, assigned)))
    indices, chosen = sample(assigned, key, samples, samples // 4, len(objects))
    boxes, of_chosen = boxes[indices], assigned[indices]
    positive = chosen & (of_chosen > BACKGROUND)
    which = jnp.where(positive, of_chosen - 1, 0)
    labels = jnp.where(positive, targets.labels[which], num_classes)
    return Regions(boxes, chosen, positive, which, labels, encode(boxes, objects[which], STDS))


def box_losses(logits: jax.Array, deltas: jax.Array, sampled: Regions) -> tuple[Term, Term]:
    """Losses of the classes, and of the positives' deltas of their own class, over all regions."""
    own = jnp.minimum(sampled.labels, deltas.shape[2] - 1)[..., None, None]
    deltas = jnp.take_along_axis(deltas, own, axis=2)[..., 0, :]
    classes = losses.cross_entropy(logits, sampled.labels, sampled.valid)
    box = losses.l1(deltas, sampled.deltas, sampled.positive)
    return classes, Term(box, classes.number)


def detections(
    logits: jax.Array,
    deltas: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    image_shape: jax.Array,
) -> Detections:
    """What is found in the regions of one image; all arrays are without B, as for `jax.vmap`.

    Args:
      logits: [R,num_classes+1].
      deltas: [R,num_classes,4].
      boxes: [R,4] the regions.
      valid: [R] bool.
      image_shape: [2] (height, width) of the image without padding.
    """
    scores = jax.nn.softmax(logits)[:, :-1]
    promising = (scores > SCORE_THRESHOLD) & valid[:, None]
    found = decode(boxes[:, None], deltas, STDS, image_shape).reshape(-1, 4)
    labels = jnp.tile(jnp.arange(scores.shape[1], dtype=jnp.int32), len(boxes))
    return suppressed(found, scores.ravel(), labels, promising.ravel())
