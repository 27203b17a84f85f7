"""The loss of classification: from photos and labels, on the device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ssmjax import Backbone
from ssmjax.preprocess import Preprocessing
from train.augment.config import AugmentConfig
from train.augment.erase import erase
from train.augment.mix import mix, smooth_targets
from train.engine.config import OptimConfig
from train.engine.step import Terms

TEMPERATURE = 2.0  # Of both outputs in distillation.


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["teacher_state"],
    meta_fields=["config", "augment", "num_classes", "preprocessing", "teacher_graphdef"],
)
@dataclasses.dataclass(frozen=True)
class ClassificationLoss:
    """Cross entropy with soft targets and divergence from a teacher; a `train.engine.step.Loss`.

    Attributes:
      config: label smoothing, share of distillation, rematerialisation.
      augment: erasing, mixup and cutmix; the rest of it has been done to the images.
      num_classes: outputs of the model.
      preprocessing: of the model.
      teacher_graphdef, teacher_state: the model to follow, by `nnx.split`; None without.
    """

    config: OptimConfig
    augment: AugmentConfig
    num_classes: int
    preprocessing: Preprocessing
    teacher_graphdef: nnx.GraphDef | None = None
    teacher_state: nnx.State | None = None

    def prepare(self, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """Normalise, erase, mix.

        Args:
          batch: `image` [B,height,width,3] of 0 to 255, `label` [B] int32.
          key: for erasing and mixing.

        Returns:
          `image` [B,height,width,3] float32, `target` [B,num_classes] float32.
        """
        augment = self.augment
        erase_key, mix_key = jax.random.split(key)
        images = self.preprocessing.normalise(batch["image"])
        targets = smooth_targets(batch["label"], self.num_classes, self.config.label_smoothing)
        if augment.erase:
            images = erase(erase_key, images, augment.erase)
        if augment.mixup or augment.cutmix:
            images, targets = mix(
                mix_key, images, targets, mixup=augment.mixup, cutmix=augment.cutmix
            )
        return {"image": images, "target": targets}

    def __call__(self, model: Backbone, batch: dict[str, jax.Array], key: jax.Array) -> Terms:
        """The loss of a batch that `prepare` made; the teacher sees the same images."""
        images = batch["image"]
        logits = model(images, train=True, key=key, remat=self.config.remat)
        number = jnp.float32(len(images))
        loss = optax.softmax_cross_entropy(logits, batch["target"]).sum()
        if self.teacher_graphdef is None:
            return {"loss": (loss, number)}
        teacher = nnx.merge(self.teacher_graphdef, self.teacher_state)
        soft, follow = (jax.nn.log_softmax(x / TEMPERATURE) for x in (teacher(images), logits))
        divergence = jnp.sum(jnp.exp(soft) * (soft - follow))
        distill = self.config.distill
        return {"loss": ((1 - distill) * loss + distill * TEMPERATURE**2 * divergence, number)}
