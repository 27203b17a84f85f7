"""Position embeddings for a grid of another size."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CUBIC = -0.75  # The `a` of PyTorch's bicubic kernel.


def resize_pos_embed(
    embedding: np.ndarray,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    class_token: tuple[int | None, int | None] = (None, None),
) -> np.ndarray:
    """Resize as the official code does: bicubic with a = -0.75, half-pixel centres, no antialias.

    Args:
      embedding: [1,L,D], the h*w patches in raster order and perhaps a class token.
      old: (h, w), the grid it was made for.
      new: (H, W), the grid wanted.
      class_token: where the class token stands before and after, None without one; its embedding
        is left as it is. (The official fine-tuning script of Vim takes the first token for it.)

    Returns:
      [1,L',D] for H*W patches, of the embedding's dtype if that is float32 or wider, and else
      float32; computed in float64.
    """
    embedding = embedding.astype(np.promote_types(embedding.dtype, np.float32), copy=False)
    if old == new:
        return embedding
    (h, w), (H, W) = old, new
    before, after = class_token
    if before is not None and after is not None:
        patches = resize_pos_embed(np.delete(embedding, before, axis=1), old, new)
        return np.insert(patches, after, embedding[:, before], axis=1)
    grid = embedding.reshape(h, w, -1).astype(np.float64)
    resized = np.einsum(
        "Hh,Ww,hwd->HWd", bicubic_weights(h, H), bicubic_weights(w, W), grid, optimize=True
    )
    return resized.reshape(1, H * W, -1).astype(embedding.dtype)


def resize_inside(embedding: jax.Array, old: tuple[int, int], new: tuple[int, int]) -> jax.Array:
    """`resize_pos_embed` of a variable inside a model: [1,h*w,D] to [1,H*W,D], differentiable."""
    if old == new:
        return embedding
    rows, columns = (
        jnp.asarray(bicubic_weights(*sides), embedding.dtype)
        for sides in zip(old, new, strict=True)
    )
    grid = embedding.reshape(*old, -1)
    highest = lax.Precision.HIGHEST
    resized = jnp.einsum("Hh,Ww,hwd->HWd", rows, columns, grid, precision=highest)
    return resized.reshape(1, new[0] * new[1], -1)


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """[new,old] weights of a resize along one axis; beyond the edge the edge is repeated."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), place), _cubic(np.abs(centres - first - tap)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel at distances up to 2 (Keys, 1981)."""
    x, a = distance, CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)
