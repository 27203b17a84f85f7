"""What a head predicts for the anchors of a feature pyramid."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from ssmjax.precision import widened


class AnchorPredictions(NamedTuple):
    """Predictions for anchors, in the order of `ssmjax.dense.geometry.anchors.Anchors.boxes`.

    Attributes:
      logits: of each level, in float32 (or wider): [B,A] that there is an object, or
        [B,A,num_classes] of each class.
      deltas: [B,A,4] of each level, in float32 (or wider).
      grids: (H, W) of each level.
    """

    logits: tuple[jax.Array, ...]
    deltas: tuple[jax.Array, ...]
    grids: tuple[tuple[int, int], ...]


def predict(
    head: Callable[[jax.Array], tuple[jax.Array, jax.Array]], maps: Sequence[jax.Array]
) -> AnchorPredictions:
    """What `head`, from a map [B,H,W,width] to logits and deltas, predicts for all levels."""
    logits, deltas = zip(*(map(widened, head(x)) for x in maps), strict=True)
    return AnchorPredictions(logits, deltas, tuple((x.shape[1], x.shape[2]) for x in maps))
