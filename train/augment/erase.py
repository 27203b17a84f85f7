"""Random erasing, in the step: a rectangle of some images becomes noise."""

import math

import jax
import jax.numpy as jnp

AREA = (0.02, 1 / 3)  # Smallest and largest share of the image.
ASPECT = (0.3, 1 / 0.3)  # Height over width, drawn evenly on a logarithmic scale.
TRIES = 10  # Of rectangles until one fits; an image that none fits stays as it is.


def erase(key: jax.Array, images: jax.Array, probability: float) -> jax.Array:
    """Fill a random rectangle of some images with normal noise, another value per pixel.

    Random erasing (arXiv 1708.04896) as timm's mode "pixel" has it. All tries are drawn at once and
    the first that fits is taken, which is the same distribution as trying one after the other.

    Images [B,height,width,channels] are normalised to deviations of about 1.
    """
    chosen_key, place_key, noise_key = jax.random.split(key, 3)
    batch, height, width, _ = images.shape
    chosen = jax.random.bernoulli(chosen_key, probability, (batch,))
    erased = draw_rectangles(place_key, batch, (height, width)) & chosen[:, None, None]
    noise = jax.random.normal(noise_key, images.shape, images.dtype)
    return jnp.where(erased[..., None], noise, images)


def draw_rectangles(key: jax.Array, batch: int, size: tuple[int, int]) -> jax.Array:
    """[batch,height,width] bool: one random rectangle for each image, empty where none fits."""
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    shape = (batch, TRIES)
    area = jax.random.uniform(area_key, shape, minval=AREA[0], maxval=AREA[1]) * math.prod(size)
    low, high = map(math.log, ASPECT)
    aspect = jnp.exp(jax.random.uniform(aspect_key, shape, minval=low, maxval=high))
    sides = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], axis=-1)
    sides = jnp.round(sides).astype(jnp.int32)  # [batch,TRIES,2]: height, width.
    fits = (sides < jnp.array(size)).all(axis=-1)
    first = jnp.argmax(fits, axis=1)[:, None, None]
    sides = jnp.take_along_axis(sides, first, axis=1)[:, 0]
    start = jax.random.randint(place_key, (batch, 2), 0, jnp.array(size) - sides + 1)
    rows, columns = (
        (jnp.arange(side) >= start[:, axis, None])
        & (jnp.arange(side) < (start + sides)[:, axis, None])
        for axis, side in enumerate(size)
    )
    return rows[:, :, None] & columns[:, None, :] & fits.any(axis=1)[:, None, None]
