"""RetinaNet (Lin et al. 2017, arXiv 1708.02002): classes and boxes of anchors, in one stage."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.dense.backbones.adapter import PlainMambaAdapter
from ssmjax.dense.config import RetinaNetConfig
from ssmjax.dense.detector import Detector
from ssmjax.dense.geometry.anchors import Anchors
from ssmjax.dense.geometry.boxes import decode, encode
from ssmjax.dense.geometry.nms import best
from ssmjax.dense.heads import losses
from ssmjax.dense.heads.anchor_head import AnchorPredictions, predict
from ssmjax.dense.heads.assign import BACKGROUND, IGNORED, assign
from ssmjax.dense.heads.fpn import FPN
from ssmjax.dense.heads.losses import Term
from ssmjax.dense.heads.objects import SCORE_THRESHOLD, Detections, Targets, suppressed
from ssmjax.layers.conv_bias import ConvTower, convolution

ANCHORS = Anchors(
    strides=(8, 16, 32, 64, 128),
    scales=tuple(4 * 2 ** (i / 3) for i in range(3)),
    ratios=(0.5, 1.0, 2.0),
)
STDS = (1.0, 1.0, 1.0, 1.0)
POSITIVE, NEGATIVE, LEAST = 0.5, 0.4, 0.0  # See `ssmjax.dense.heads.assign.assign`.
CONVS = 4
RARE = 0.01  # Probability of each class of each anchor at first.
# Of the map of stride 4, which nothing looks at: these parameters get no gradient.
UNUSED = ("backbone.up", "backbone.prior.projections.0", "backbone.norms.0")
CANDIDATES = 1000  # Best pairs of an anchor and a class, of a level.


class RetinaHead(nnx.Module):
    """Two towers of convolutions, shared by all levels."""

    def __init__(self, width: int, num_classes: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs, "kernel_init": nnx.initializers.normal(0.01)}
        self.class_tower = ConvTower(width, CONVS, **options)
        self.box_tower = ConvTower(width, CONVS, **options)
        rare = -math.log(1 / RARE - 1)
        self.classes = convolution(width, ANCHORS.per_cell * num_classes, 3, bias=rare, **options)
        self.deltas = convolution(width, 4 * ANCHORS.per_cell, 3, **options)

    def __call__(self, maps: Sequence[jax.Array]) -> AnchorPredictions:
        """Classes and deltas of the five levels [B,H,W,width] of a feature pyramid."""

        def of_level(x):
            deltas = self.deltas(self.box_tower(x)).reshape(len(x), -1, 4)
            classes = self.classes(self.class_tower(x))
            return classes.reshape(*deltas.shape[:2], -1), deltas

        return predict(of_level, maps)


def anchor_losses(predicted: AnchorPredictions, targets: Targets) -> tuple[Term, Term]:
    """Losses of all anchors: classes and deltas, whose totals are [levels].

    Both are over the number of anchors with an object, of each image at least one.
    """
    levels = ANCHORS.boxes(predicted.grids)
    boxes = jnp.asarray(np.concatenate(levels))

    def match(objects, present, padded_shape):
        inside = jnp.concatenate(ANCHORS.valid(padded_shape, predicted.grids))
        return assign(boxes, objects, present, POSITIVE, NEGATIVE, LEAST, inside)

    assigned = jax.vmap(match)(targets.boxes, targets.valid, targets.padded_shapes)
    positive, which = assigned > BACKGROUND, jnp.maximum(assigned - 1, 0)
    own = jnp.take_along_axis(targets.labels, which, axis=1)
    labels = jnp.where(positive, own, predicted.logits[0].shape[-1])
    objects = jnp.take_along_axis(targets.boxes, which[..., None], axis=1)
    number = jnp.maximum(positive.sum(axis=1), 1).sum()
    ends = np.cumsum([len(level) for level in levels])
    split = (
        jnp.split(a, ends[:-1], axis=1)
        for a in (labels, assigned != IGNORED, positive, encode(boxes, objects, STDS))
    )
    per_level = [
        (losses.focal(logits, labels, learned), losses.l1(deltas, target_deltas, positive))
        for logits, deltas, labels, learned, positive, target_deltas in zip(
            predicted.logits, predicted.deltas, *split, strict=True
        )
    ]
    classes, box = (Term(jnp.stack(each), number) for each in zip(*per_level, strict=True))
    return classes, box


def detections(predicted: AnchorPredictions, image_shapes: jax.Array) -> Detections:
    """The objects in images whose sides are `image_shapes` [B,2], of all anchors' predictions."""
    anchors = ANCHORS.boxes(predicted.grids)

    def of_level(logits, deltas, boxes, image_shape):
        # The best pairs are among the anchors with the best classes; others need no ranking.
        indices, chosen = best(logits.max(axis=1), jnp.ones(len(logits), bool), CANDIDATES)
        scores = jax.nn.sigmoid(logits[indices])
        promising = (scores > SCORE_THRESHOLD) & chosen[:, None]
        pairs, chosen = best(scores.ravel(), promising.ravel(), CANDIDATES)
        anchor, labels = indices[pairs // scores.shape[1]], pairs % scores.shape[1]
        found = decode(jnp.asarray(boxes)[anchor], deltas[anchor], STDS, image_shape)
        return found, scores.ravel()[pairs], labels, chosen

    def of_image(logits, deltas, image_shape):
        levels = [
            of_level(*level, image_shape) for level in zip(logits, deltas, anchors, strict=True)
        ]
        return suppressed(*(jnp.concatenate(each) for each in zip(*levels, strict=True)))

    return jax.vmap(of_image)(predicted.logits, predicted.deltas, image_shapes)


class RetinaNet(Detector):
    """A detector of one stage."""

    def __init__(self, config: RetinaNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        trunk = config.backbone.trunk
        options = {"dtype": jnp.dtype(trunk.dtype), "rngs": rngs}
        self.backbone = PlainMambaAdapter(config.backbone, rngs=rngs)
        self.neck = FPN(trunk.embed_dim, config.width, 3, extra_convs=True, **options)
        self.head = RetinaHead(config.width, config.num_classes, **options)

    def look(self, maps: tuple[jax.Array, ...], *, train: bool) -> AnchorPredictions:
        """The classes and boxes predicted for all anchors."""
        # The finest map is not used: what makes it alone gets no gradient.
        return self.head(self.neck(maps[1:], train=train))

    def terms(self, seen: AnchorPredictions, targets: Targets, *, train: bool) -> dict[str, Term]:
        """The losses, to which `train` makes no difference.

        Sums over anchors are divided by the number of positive ones in all images given, at least
        one an image.

        Returns:
          {"loss_cls": focal loss of the classes, "loss_bbox": L1 of the deltas}.
        """
        classes, box = anchor_losses(seen, targets)
        return {"loss_cls": classes.over_levels(), "loss_bbox": box.over_levels()}

    def find(self, seen: AnchorPredictions, image_shapes: jax.Array) -> Detections:
        """The best boxes of all anchors."""
        return detections(seen, image_shapes)
