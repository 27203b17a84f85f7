"""Boxes: overlap, and the way to and from the four deltas that a head predicts."""

import math

import jax
import jax.numpy as jnp

LARGEST_LOG_RATIO = math.log(1000 / 16)  # A side grows or shrinks by no more in decoding.


def area(boxes: jax.Array) -> jax.Array:
    """[...,4] to [...], in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of all pairs: [...,A,4] and [...,G,4] to [...,A,G].

    The union is floored at 1e-6, so that two boxes without an area overlap by 0.
    """
    a, b = a[..., :, None, :], b[..., None, :, :]
    width = jnp.minimum(a[..., 2], b[..., 2]) - jnp.maximum(a[..., 0], b[..., 0])
    height = jnp.minimum(a[..., 3], b[..., 3]) - jnp.maximum(a[..., 1], b[..., 1])
    common = jnp.maximum(width, 0) * jnp.maximum(height, 0)
    return common / jnp.maximum(area(a) + area(b) - common, 1e-6)


def encode(boxes: jax.Array, targets: jax.Array, stds: tuple[float, ...]) -> jax.Array:
    """Deltas that lead from `boxes` to `targets` (Girshick et al. 2014, appendix C).

    Args:
      boxes: [...,4] anchors or proposals.
      targets: [...,4] the boxes to predict.
      stds: what each of the four deltas is divided by.

    Returns:
      [...,4] (dx, dy, dw, dh). Not finite where a box or target has no width or no height: mask
      such entries before use.
    """
    centre, size = _centre_and_size(boxes)
    target_centre, target_size = _centre_and_size(targets)
    deltas = jnp.concatenate(
        [(target_centre - centre) / size, jnp.log(target_size / size)], axis=-1
    )
    return deltas / jnp.asarray(stds, deltas.dtype)


def decode(
    boxes: jax.Array, deltas: jax.Array, stds: tuple[float, ...], image_shape: jax.Array
) -> jax.Array:
    """Boxes that `deltas` lead to from `boxes`: the inverse of `encode`, clipped to the image.

    Args:
      boxes: [...,4].
      deltas: [...,4]; dw and dh are clamped to +-ln(1000 / 16) once multiplied by `stds`.
      stds: as in `encode`.
      image_shape: [2] (height, width) of the image without padding.
    """
    deltas = deltas * jnp.asarray(stds, deltas.dtype)
    centre, size = _centre_and_size(boxes)
    log_ratio = jnp.clip(deltas[..., 2:], -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    centre, half = centre + deltas[..., :2] * size, jnp.exp(log_ratio) * size / 2
    return clip(jnp.concatenate([centre - half, centre + half], axis=-1), image_shape)


def clip(boxes: jax.Array, image_shape: jax.Array) -> jax.Array:
    """[...,4] boxes cut off at the border of an image of [2] (height, width)."""
    height, width = image_shape[0], image_shape[1]
    limits = jnp.stack([width, height, width, height]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)


def _centre_and_size(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[...,4] to centre [...,2] and size [...,2], each (x, y)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
