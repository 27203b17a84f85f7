"""Detection on the devices: the loss, what is found, and whole masks."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.dense.geometry.masks import THRESHOLD, paste
from ssmjax.dense.heads.objects import Detections, Targets
from ssmjax.dense.mask_rcnn import MaskRCNN
from ssmjax.dense.retinanet import RetinaNet
from ssmjax.preprocess import Preprocessing
from train.data.dense.batches import normalise
from train.engine.step import Batch, Terms
from train.hosts.devices import shared_out

CANVAS = 64  # Masks are pasted into sides of multiples of it, to compile for few of them.


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DetectionLoss:
    """The sum of a detector's losses; a `train.engine.step.Loss`.

    Each is divided by the count of what it is over (anchors, regions or mask pixels) in the whole
    batch, on all devices and in all parts. The official code takes the mean over its GPUs of losses
    divided by the counts of their two images each, which gives an object more weight where few are
    beside it; here the loss of a batch does not depend on how many devices share it.
    """

    preprocessing: Preprocessing
    remat: bool

    def prepare(self, batch: Batch, key: jax.Array) -> dict[str, Any]:
        """A batch of `train.data.dense.detection_batches`, as the models take it."""
        return {
            "image": normalise(batch["image"], batch["img_shape"], self.preprocessing),
            "targets": Targets(
                batch["gt_boxes"],
                batch["gt_labels"],
                batch["gt_valid"],
                batch["img_shape"],
                batch["pad_shape"],
                batch.get("gt_masks"),
                # One for each image: the choice does not hang on the parts a batch is split into.
                jax.random.split(key, len(batch["image"])),
            ),
        }

    def __call__(self, model: MaskRCNN | RetinaNet, batch: Any, key: jax.Array) -> Terms:
        """The terms of a part of the batch; masks are unpacked here, where they are few."""
        targets = batch["targets"]
        if targets.masks is not None:
            targets = targets._replace(masks=jnp.unpackbits(targets.masks, axis=-1))
        return model.loss_terms(batch["image"], targets, key=key, remat=self.remat)


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def find(graphdef, state, batch, key, preprocessing, masks, mesh) -> Detections:
    """What is found on a batch, its rows shared out over a mesh if there is one."""
    model = nnx.merge(graphdef, state)
    images = normalise(batch["image"], batch["img_shape"], preprocessing)
    options = {"masks": True} if masks else {}
    found = model.detect(images, batch["img_shape"], key=key, **options)
    return found if mesh is None else shared_out(found, mesh)


def whole_masks(masks: np.ndarray, boxes: np.ndarray, shape) -> np.ndarray:
    """[n,height,width] bool of masks [n,28,28], in an image of that shape."""
    height, width = (int(side) for side in shape)
    canvas = tuple(-(-side // CANVAS) * CANVAS for side in (height, width))
    packed = _pasted(masks, boxes, canvas)
    return np.unpackbits(np.asarray(packed), axis=-1)[:, :height, :width].astype(bool)


@partial(jax.jit, static_argnums=2)
def _pasted(masks, boxes, canvas) -> jax.Array:
    """[n,height,width/8] uint8 of bits."""
    return jnp.packbits(paste(masks, boxes, canvas) >= THRESHOLD, axis=-1)
