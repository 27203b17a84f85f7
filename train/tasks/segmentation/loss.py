"""Segmentation on the devices: the loss, and the classes of pixels at any size."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ssmjax.dense.upernet import UperNet
from ssmjax.preprocess import Preprocessing
from train.data.dense.batches import normalise
from train.engine.step import Batch, Terms
from train.hosts.devices import shared_out
from train.tasks.dense import Sides

CANVAS = 64  # Sides that are labelled are rounded up to multiples of it, to compile for few.
ROWS = 16  # Of pixels that are labelled at once: logits of all take gigabytes.


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SegmentationLoss:
    """The sum of a segmentor's losses; a `train.engine.step.Loss`.

    Each is a mean over all pixels of the batch, those without a class included, as in the official
    code: images being of one size, it is also the mean over devices and parts.
    """

    preprocessing: Preprocessing
    remat: bool

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """A batch of `train.data.dense.segmentation_batches`, as the models take it."""
        images = normalise(batch["image"], batch["img_shape"], self.preprocessing)
        return {"image": images, "label": batch["label"], "img_shape": batch["img_shape"]}

    def __call__(self, model: UperNet, batch: Batch, key: jax.Array) -> Terms:
        """The terms of a part of the batch."""
        return model.loss_terms(
            batch["image"],
            batch["label"],  # pyright: ignore[reportArgumentType]
            image_shapes=batch["img_shape"],
            key=key,
            remat=self.remat,
        )


def canvas_of(sides: tuple[int, ...]) -> Sides:
    """Sides [height,width] that hold an image of these; few ones, to compile for few."""
    height, width = (-(-side // CANVAS) * CANVAS for side in sides)
    return height, width


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def class_logits(graphdef, state, batch, key, preprocessing, mesh, windows=None) -> jax.Array:
    """[B,h,w,classes] of a segmentor, for `label_pixels`; the model compiles for shapes of images.

    Its rows are shared out over a mesh if there is one. With `windows`, (window, stride) as of
    `ssmjax.dense.upernet.UperNet.slide`, images are looked at through them.
    """
    images = batch["image"]
    whole = jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2))
    model = nnx.merge(graphdef, state)
    look = model if windows is None else partial(model.slide, window=windows[0], stride=windows[1])
    logits = look(normalise(images, whole, preprocessing), key=key)
    return logits if mesh is None else shared_out(logits, mesh)


@partial(jax.jit, static_argnums=(2, 3))
def label_pixels(logits, shapes, canvas, mesh) -> jax.Array:
    """[B,*canvas] uint8, the classes of pixels at the images' own sizes; see `classes_at`."""
    classes = jax.vmap(partial(classes_at, canvas=canvas))(logits, shapes)
    return classes if mesh is None else shared_out(classes, mesh)


@partial(jax.jit, static_argnums=(0, 4, 5))
def classify_pixels(graphdef, state, batch, key, preprocessing, canvas) -> jax.Array:
    """`label_pixels` of `class_logits` in one program, whose speed and memory can be measured."""
    logits = class_logits(graphdef, state, batch, key, preprocessing, None)
    return label_pixels(logits, batch["original_shape"], canvas, None)


def classes_at(logits: jax.Array, shape: jax.Array, canvas: Sides) -> jax.Array:
    """The class of each pixel of an image whose logits are of another size.

    They are resized by bilinear interpolation with half-pixel centres, without antialiasing; a few
    rows at a time.

    Args:
      logits: [h,w,classes].
      shape: [2] integers, height and width of the image.
      canvas: sides of the result, static.

    Returns:
      [*canvas] uint8, of no meaning beyond `shape`.
    """
    (upper, lower, down), (left, right, over) = (
        _neighbours(number, size, have)
        for number, size, have in zip(canvas, shape, logits.shape, strict=False)
    )

    def of_row(row):
        above, below, share = row
        line = logits[above] + share * (logits[below] - logits[above])
        line = line[left] + over[:, None] * (line[right] - line[left])
        return jnp.argmax(line, axis=-1).astype(jnp.uint8)

    return lax.map(of_row, (upper, lower, down), batch_size=ROWS)


def _neighbours(number: int, size: jax.Array, have: int):
    """The two pixels of an axis of `have` that each of `number` pixels lies between when it is
    resized to `size`, and how far along it lies.
    """
    at = (jnp.arange(number) + 0.5) * have / size - 0.5
    at = jnp.clip(at, 0, have - 1)
    before = jnp.floor(at).astype(jnp.int32)
    return before, jnp.minimum(before + 1, have - 1), at - before
