"""Mixup and cutmix, in the step: every image of a batch takes a part of its partner's."""

import jax
import jax.numpy as jnp


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """[B] labels to [B,num_classes] float32 targets, of which `smoothing` is spread evenly."""
    off = smoothing / num_classes
    return jax.nn.one_hot(labels, num_classes) * (1 - smoothing) + off


def mix(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """Mix each image and target with its partner's: those of the batch in reverse order.

    Mixup (arXiv 1710.09412) blends whole images, cutmix (arXiv 1905.04899) pastes a rectangle; as
    in timm's "batch" mode, one draw serves the whole batch. With both, a fair coin chooses. Where
    the official code draws for each GPU's images, this draws for those of all devices, so that a
    run of one seed is the same on any number of them.

    Args:
      key: for the coin, the share and the rectangle's place.
      images: [B,height,width,channels] float32.
      targets: [B,num_classes] float32, smoothed already.
      mixup: alpha of the share's distribution Beta(alpha, alpha); 0 without mixup.
      cutmix: as `mixup`, of cutmix; one of the two is above 0.

    Returns:
      Images and targets as given, mixed.
    """
    _, height, width, _ = images.shape
    own = draw_own_share(key, (height, width), mixup=mixup, cutmix=cutmix)
    weight = own[..., None]
    share = own.mean()  # Of a rectangle its true area, once it is clipped and in whole pixels.
    return (
        weight * images + (1 - weight) * images[::-1],
        share * targets + (1 - share) * targets[::-1],
    )


def draw_own_share(
    key: jax.Array, size: tuple[int, int], *, mixup: float, cutmix: float
) -> jax.Array:
    """[height,width] float32: the weight that each pixel keeps; arguments as in `mix`."""
    coin_key, share_key, place_key = jax.random.split(key, 3)
    cut = jax.random.bernoulli(coin_key) if mixup and cutmix else jnp.bool(cutmix > 0)
    alpha = jnp.where(cut, cutmix, mixup)
    share = jax.random.beta(share_key, alpha, alpha)
    # A centre may lie anywhere, so that the rectangle may reach beyond the image.
    centre = jax.random.randint(place_key, (2,), 0, jnp.array(size))
    return jnp.where(cut, 1.0 - rectangle(size, share, centre), share)


def rectangle(size: tuple[int, int], share: jax.Array, centre: jax.Array) -> jax.Array:
    """[height,width] bool: the pixels of a rectangle as the image is, of `1 - share` of its area.

    Its sides are cut to even pixels, and to the image; `centre` [2] int32 is row and column.
    """
    halves = jnp.floor(jnp.array(size) * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
    rows, columns = (
        (jnp.arange(side) >= middle - half) & (jnp.arange(side) < middle + half)
        for side, middle, half in zip(size, centre, halves, strict=True)
    )
    return rows[:, None] & columns
