"""Accuracy of classifiers: which classes images are taken for, counted on the devices."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax import Backbone
from ssmjax.preprocess import Preprocessing
from train.data.fetching.fetch import DataError


@dataclasses.dataclass(frozen=True)
class Scores:
    """How well a model tells a split's photos apart.

    Attributes:
      top1: share of the photos whose class has the largest logit.
      top5: share of the photos whose class is among the five largest.
      photos: how many were readable, each counted once.
      confusion: [classes,classes] int, photos by true class and by the class they were taken for;
        None where it was not asked for.
    """

    top1: float
    top5: float
    photos: int
    confusion: np.ndarray | None = None

    @classmethod
    def from_counts(cls, counts: Mapping[str, jax.Array], title: str) -> "Scores":
        """By what `count` gives, added up over the split of a title.

        Raises:
          DataError: no photo was readable.
        """
        top1, top5, photos = (int(counts[name]) for name in ("top1", "top5", "photos"))
        if not photos:
            raise DataError(f"No photo of {title} can be read, so there is nothing to score.")
        table = np.asarray(counts["confusion"]) if "confusion" in counts else None
        return cls(top1 / photos, top5 / photos, photos, table)

    @property
    def metrics(self) -> dict[str, float]:
        """What the log has."""
        return {"accuracy": self.top1, "top5": self.top5}

    def __str__(self) -> str:
        return f"top-1 {100 * self.top1:.2f}%  top-5 {100 * self.top5:.2f}%  {self.photos:,} photos"


@partial(jax.jit, static_argnames=("graphdef", "preprocessing", "confusion"))
def count(graphdef, state, batch, key, preprocessing: Preprocessing, confusion):
    """How many photos of a batch are right: scalars `photos`, `top1` and `top5`.

    Args:
      graphdef, state: of a `ssmjax.Backbone`.
      batch: `image` [B,height,width,channels] of 0 to 255, `label` [B], and `mask` [B], which is
        false where there is no photo.
      key: for models that choose tokens at random.
      preprocessing: of the model.
      confusion: whether there is `confusion` [classes,classes] too, as `Scores` has it.
    """
    model: Backbone = nnx.merge(graphdef, state)
    logits = model(preprocessing.normalise(batch["image"]), key=key)
    label, mask = batch["label"], batch["mask"]
    classes = jnp.arange(logits.shape[-1])
    mine = jnp.take_along_axis(logits, label[:, None], axis=-1)
    # What is not a number beats the right class; of equals, the first one wins, as in argmax.
    beaten = ~(logits <= mine) | ((logits == mine) & (classes < label[:, None]))
    rank = jnp.sum(beaten & (classes != label[:, None]), axis=-1)
    counts = {"photos": jnp.sum(mask)}
    for name, best in (("top1", 1), ("top5", 5)):
        counts[name] = jnp.sum((rank < best) & mask & jnp.isfinite(mine[:, 0]))
    if confusion:
        table = jnp.zeros((len(classes),) * 2, jnp.int32)
        counts["confusion"] = table.at[label, jnp.argmax(logits, axis=-1)].add(mask)
    return counts
