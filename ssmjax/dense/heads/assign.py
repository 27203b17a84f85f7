"""Which ground-truth object a box is to predict."""

import jax
import jax.numpy as jnp
from jax import lax

from ssmjax.dense.geometry.boxes import iou

IGNORED, BACKGROUND = -1, 0  # The object k is k + 1.


def assign(
    boxes: jax.Array,
    gts: jax.Array,
    gt_valid: jax.Array,
    pos: float,
    neg: float,
    min_pos: float,
    box_valid: jax.Array | None = None,
) -> jax.Array:
    """Assignment by largest IoU, as in Faster R-CNN (Ren et al. 2015), section 3.1.2.

    A box belongs to the object it overlaps most, if by `pos` or more; each object moreover takes
    every box that overlaps it as much as its best box does, if by `min_pos` or more, and of
    several objects the last one gets the box. Memory: a few times G * A float32.

    Args:
      boxes: [A,4] anchors or proposals.
      gts: [G,4] ground-truth objects.
      gt_valid: [G] bool, False for padding.
      pos: IoU from which a box belongs to an object; this and the next two are static.
      neg: IoU below which it is background; between the two it is ignored.
      min_pos: IoU from which an object takes its best boxes.
      box_valid: [A] bool; the others are ignored, and are nobody's best box. None: all.

    Returns:
      [A] int32: k + 1 for object k, 0 for background, -1 for ignored.
    """
    if not len(gts):
        gts, gt_valid = jnp.zeros((1, 4), boxes.dtype), jnp.zeros(1, bool)
    overlaps = jnp.where(gt_valid[:, None], iou(gts, boxes), -1)
    if box_valid is not None:
        overlaps = jnp.where(box_valid, overlaps, -1)
    # Computed once: computed again for its maximum, it might round in another way and not tie.
    overlaps = lax.optimization_barrier(overlaps)
    largest = overlaps.max(axis=0)
    assigned = jnp.where(largest < neg, BACKGROUND, IGNORED)
    assigned = jnp.where(largest >= pos, 1 + jnp.argmax(overlaps, axis=0), assigned)

    of_object = overlaps.max(axis=1, keepdims=True)
    taken = (overlaps == of_object) & (of_object >= max(min_pos, 0))
    taker = jnp.max(jnp.where(taken, 1 + jnp.arange(gts.shape[0])[:, None], 0), axis=0)
    assigned = jnp.where(taker > 0, taker, assigned)
    if box_valid is not None:
        assigned = jnp.where(box_valid, assigned, IGNORED)
    return assigned.astype(jnp.int32)
