"""The best boxes, and non-maximum suppression."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Integer

from kernels.array_types import Array
from ssmjax.dense.geometry.boxes import iou


def best(
    scores: Float[Array, " n"], valid: Bool[Array, " n"], count: int
) -> tuple[Integer[Array, " {count}"], Bool[Array, " {count}"]]:
    """Indices of the `count` best valid scores, best first, and whether each is chosen.

    Ties go to the lower index. `count` is static and may exceed n; where too few are valid, the
    index is 0 and not chosen.
    """
    # Not lax.top_k: with the batch spread over devices, XLA would gather it for that.
    order = _by_score(scores, valid)[:count]
    chosen = jnp.arange(count) < valid.sum()
    return jnp.where(chosen, jnp.pad(order, (0, count - order.size)), 0), chosen


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    threshold: float,
) -> Bool[Array, " n"]:
    """Greedy non-maximum suppression: a box goes if it overlaps a better one that is kept.

    Memory: n * n booleans. Work: some rounds over them, one more than the longest chain of boxes
    of which each decides about the next; a few in practice, n at worst.

    Args:
      boxes, scores: of equal scores the lower index is better.
      valid: the others are not kept and suppress nothing.
      threshold: IoU above which a box goes; at exactly this much it stays.

    Returns:
      Whether each box is kept.
    """
    order = _by_score(scores, valid)
    boxes, valid = boxes[order], valid[order]
    rank = jnp.arange(order.size)
    suppresses = (iou(boxes, boxes) > threshold) & (rank[:, None] < rank)

    def again(state):
        kept, _ = state
        now = valid & ~jnp.any(suppresses & kept[:, None], axis=0)
        return now, jnp.any(now != kept)

    # After r rounds the first r boxes are decided, since each depends on better ones alone: what
    # stays the same in a round is the greedy answer.
    kept, _ = lax.while_loop(lambda state: state[1], again, (valid, jnp.any(valid)))
    return jnp.zeros_like(kept).at[order].set(kept, unique_indices=True)


def best_of_classes(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    labels: Integer[Array, " n"],
    valid: Bool[Array, " n"],
    threshold: float,
    count: int,
) -> tuple[Integer[Array, " {count}"], Bool[Array, " {count}"]]:
    """Indices of the `count` best boxes that `nms` inside each class leaves, best first.

    One after the other the best one left is taken: memory is n, for few of very many boxes.

    Args:
      boxes, scores, valid, threshold: as of `nms`.
      labels: the classes.
      count: static; may exceed n.

    Returns:
      The indices, of no meaning where too few are left, and whether each one is left.
    """

    def take(left, _):
        at = jnp.argmax(jnp.where(left, scores, -jnp.inf))
        like = (iou(boxes[at][None], boxes)[0] > threshold) & (labels == labels[at])
        return (left & ~like).at[at].set(False), (at, left[at])

    return lax.scan(take, valid, length=count)[1]


def _by_score(scores: jax.Array, valid: jax.Array) -> jax.Array:
    """[n] int32 indices, best first, those not valid last."""
    ranked = jnp.where(valid, scores, -jnp.inf)
    return jnp.argsort(ranked, descending=True, stable=True).astype(jnp.int32)
