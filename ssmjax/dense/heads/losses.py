"""Losses of the heads, in float32. What a mask leaves out adds nothing, whatever its values."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Integer

from kernels.array_types import Array

ALPHA = 0.25  # Weight of the positives in the focal loss; its gamma is 2.
NO_CLASS = 255  # Pixels labelled so are not learned from.


class Term(NamedTuple):
    """A loss in two parts, each of which adds up over the parts of a batch.

    Attributes:
      total: what is summed, float32 (or wider); a scalar, or [levels].
      number: scalar, what to divide it by.
    """

    total: jax.Array
    number: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The loss, of total's shape; 0 where nothing is summed."""
        return self.total / jnp.maximum(self.number, 1)

    def over_levels(self) -> "Term":
        """The sum of totals [levels]."""
        return self._replace(total=self.total.sum())


def means(terms: Mapping[str, Term]) -> dict[str, jax.Array]:
    """The losses, by name, of what they are made of."""
    return {name: term.mean for name, term in terms.items()}


def focal(
    logits: Float[Array, "*any classes"],
    labels: Integer[Array, "*any"],
    valid: Bool[Array, "*any"],
) -> Float[Array, ""]:
    """Focal loss (Lin et al. 2017), summed; divide by the sum over images of max(positives, 1).

    Each class is for itself; labels of their number or more are background. `valid` are the anchors
    that are not ignored.
    """
    right = labels[..., None] == jnp.arange(logits.shape[-1])
    margin = jnp.where(right, 1, -1) * logits.astype(jnp.float32)
    weights = jnp.where(right, ALPHA, 1 - ALPHA) * jnp.square(jax.nn.sigmoid(-margin))
    return _sum(-weights * jax.nn.log_sigmoid(margin), valid[..., None])


def binary_cross_entropy(
    logits: Float[Array, "*any"], positive: Bool[Array, "*any"], valid: Bool[Array, "..."]
) -> Float[Array, ""]:
    """Cross entropy of one logit each, summed; divide by the number of sampled anchors.

    `valid` has a shape that broadcasts to that of the others.
    """
    margin = jnp.where(positive, 1, -1) * logits.astype(jnp.float32)
    return _sum(-jax.nn.log_sigmoid(margin), valid)


def l1(
    deltas: Float[Array, "*any 4"], targets: Float[Array, "*any 4"], positive: Bool[Array, "*any"]
) -> Float[Array, ""]:
    """Absolute error of the deltas, summed over the positives.

    Divide by the number of positives (RetinaNet) or of all sampled boxes (RPN, RoI head).
    """
    # Targets of the others may be infinite, which a gradient would turn into NaN.
    error = jnp.where(positive[..., None], deltas.astype(jnp.float32) - targets, 0)
    return jnp.abs(error).sum()


def cross_entropy(
    logits: Float[Array, "*any classes"],
    labels: Integer[Array, "*any"],
    valid: Bool[Array, "*any"],
) -> Term:
    """Softmax cross entropy over the number of valid labels; others may be no class."""
    logits, labels = logits.astype(jnp.float32), jnp.where(valid, labels, 0)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return Term(_sum(each, valid), valid.sum())


def mask(
    logits: Float[Array, "*any height width classes"],
    targets: Bool[Array, "*any height width"],
    labels: Integer[Array, "*any"],
    valid: Bool[Array, "*any"],
) -> Term:
    """Binary cross entropy in the channel of each object's class, over valid boxes' pixels."""
    channel = jnp.clip(labels, 0, logits.shape[-1] - 1)[..., None, None, None]
    chosen = jnp.take_along_axis(logits, channel, axis=-1)[..., 0]
    total = binary_cross_entropy(chosen, targets, valid[..., None, None])
    height, width = targets.shape[-2:]
    return Term(total, valid.sum() * height * width)


def segmentation(logits: Float[Array, "*any classes"], labels: Integer[Array, "*any"]) -> Term:
    """Softmax cross entropy of the pixels not labelled 255, over the number of all pixels."""
    learned = cross_entropy(logits, labels, labels != NO_CLASS)
    return learned._replace(number=jnp.float32(labels.size))


def _sum(values: jax.Array, valid: jax.Array) -> jax.Array:
    return jnp.where(valid, values, 0).sum()
