"""Masks of objects, cut out in boxes to learn from, and pasted back into the image."""

import jax
import jax.numpy as jnp
from jax import lax

from ssmjax.dense.geometry.boxes import clip
from ssmjax.dense.geometry.roi_align import bins_of, weights_of

THRESHOLD = 0.5  # Share covered, or probability, from which a part of a box is of its object.


def crop(
    masks: jax.Array, indices: jax.Array, boxes: jax.Array, sides: jax.Array, bins: int
) -> jax.Array:
    """Share of each of `bins` x `bins` parts of a box that its object's mask covers.

    RoIAlign at full resolution, of the box cut off at the border. One box after another, so that
    no mask is held once per box.

    Args:
      masks: [G,H,W] bool or 0 and 1.
      indices: [R] integers, the mask of each box.
      boxes: [R,4].
      sides: [2] integers, (height, width) of the masks' part that counts, from the corner on.
      bins: per axis.

    Returns:
      [R,bins,bins] float32, 0 to 1.
    """
    masks = jnp.asarray(masks)
    H, W = masks.shape[1:]
    boxes = clip(boxes.astype(jnp.float32), sides)

    def one(of_box):
        index, (left, top, right, bottom) = of_box
        rows = weights_of(bins_of(top, bottom, sides[0], bins), jnp.arange(H)[:, None])
        columns = weights_of(bins_of(left, right, sides[1], bins), jnp.arange(W)[:, None])
        mask = masks[index].astype(jnp.float32)
        return jnp.linalg.multi_dot([rows.T, mask, columns], precision=lax.Precision.HIGHEST)

    return lax.map(one, (indices, tuple(boxes.T)))


def mask_targets(
    masks: jax.Array, indices: jax.Array, boxes: jax.Array, sides: jax.Array, bins: int
) -> jax.Array:
    """[R,bins,bins] bool, the parts of a box at least half covered; arguments as of `crop`."""
    return crop(masks, indices, boxes, sides, bins) >= THRESHOLD


def paste(masks: jax.Array, boxes: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Put each mask into its box in an image: bilinear, half-pixel centres, 0 outside.

    Args:
      masks: [n,h,w] probabilities.
      boxes: [n,4] in pixels of the image; one without width or height gives an empty mask.
      shape: (H, W) of the image, static.

    Returns:
      [n,H,W] float32 probabilities; n * H * W * 4 bytes, so take few boxes at a time. The object
      is where they are `THRESHOLD` or more.
    """
    left, top, right, bottom = boxes.astype(jnp.float32).T
    rows = _paste_weights(top, bottom, masks.shape[1], shape[0])
    columns = _paste_weights(left, right, masks.shape[2], shape[1])
    masks = masks.astype(jnp.float32)
    return jnp.einsum("nyh,nhw,nxw->nyx", rows, masks, columns, precision=lax.Precision.HIGHEST)


def _paste_weights(low: jax.Array, high: jax.Array, cells: int, size: int) -> jax.Array:
    """[n,size,cells] weight of a mask's cell in each pixel of the image."""
    low, length = low[:, None], (high - low)[:, None]
    share = (jnp.arange(size) + 0.5 - low) / jnp.where(length > 0, length, 1)
    distance = jnp.abs((share * cells - 0.5)[..., None] - jnp.arange(cells))
    return jnp.where(length > 0, 1.0, 0.0)[..., None] * jnp.maximum(1 - distance, 0)
