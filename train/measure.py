"""Accuracy of classifiers."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax import Backbone
from ssmjax.preprocess import PLAIN
from ssmjax.weights import Metadata
from train.config import DataConfig
from train.data.fetch import DataError
from train.data.pipeline import eval_batches
from train.data.source import Split
from train.data.unreadable import Unreadable
from train.devices import Lead, place_batch, place_state
from train.runtime import Runtime


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

    @property
    def metrics(self) -> dict[str, float]:
        """What the log has."""
        return {"accuracy": self.top1, "top5": self.top5}

    def __str__(self) -> str:
        return f"top-1 {100 * self.top1:.2f}%  top-5 {100 * self.top5:.2f}%  {self.photos:,} photos"


def score(
    model: Backbone,
    split: Split,
    metadata: Metadata,
    data: DataConfig,
    runtime: Runtime,
    title: str,
    *,
    batch_size: int,
    seed: int,
    confusion: bool = False,
) -> Scores:
    """Every photo of a split once, on all devices of all processes; each gets the same result.

    Args:
      model: in inference mode.
      split: the photos.
      metadata: of the model's weights, for size and normalisation of the photos.
      data: says how many may be unreadable.
      runtime: where to compute.
      title: of the progress bar.
      batch_size: photos a step, rounded up to a multiple of the devices.
      seed: for models that choose tokens at random.
      confusion: whether to count who is taken for whom.

    Raises:
      train.data.fetch.DataError: more photos are unreadable than `data` allows, or all.
    """
    graphdef, state = nnx.split(model)
    state = place_state(state, runtime.mesh, fsdp=False)
    devices = runtime.mesh.size
    batch_size = -(-batch_size // devices) * devices
    batches = eval_batches(
        split,
        batch_size=batch_size,
        size=model.config.image_shape[:2],
        crop_pct=metadata.preprocessing.crop_pct,
        workers=runtime.workers,
        process=runtime.process,
    )
    key = jax.random.key(seed)
    task = runtime.progress.add_task(f"{title}, batch", total=-(-len(split.source) // batch_size))
    lead = Lead()
    unreadable = Unreadable(split, data.max_unreadable, runtime.progress.console)
    totals: Any = None
    for index, batch in enumerate(batches):
        unreadable.note(batch)
        given = {name: batch[name] for name in ("image", "label", "mask")}
        counts = _count(
            graphdef,
            state,
            place_batch(given, runtime.mesh),
            jax.random.fold_in(key, index),
            metadata.preprocessing,
            confusion,
        )
        lead.started(counts)
        totals = counts if totals is None else jax.tree.map(jnp.add, totals, counts)
        runtime.progress.update(task, advance=1)
    runtime.progress.remove_task(task)
    top1, top5, photos = (int(totals[name]) for name in ("top1", "top5", "photos"))
    if not photos:
        raise DataError(f"No photo of {split.title} can be read, so there is nothing to score.")
    table = np.asarray(totals["confusion"]) if confusion else None
    return Scores(top1 / photos, top5 / photos, photos, table)


@partial(jax.jit, static_argnums=(0, 4, 5))
def _count(graphdef, state, batch, key, preprocessing, confusion):
    """How many photos of a batch are right, and with `confusion` the table."""
    model: Backbone = nnx.merge(graphdef, state)
    logits = model(preprocessing.normalise(batch["image"]), key=key)
    label, mask = batch["label"], batch["mask"]
    classes = jnp.arange(logits.shape[-1])
    mine = jnp.take_along_axis(logits, label[:, None], axis=-1)
    # What is not a number beats the right class; of equals, the first one wins, as in argmax.
    ahead = ~(logits <= mine) | ((logits == mine) & (classes < label[:, None]))
    rank = jnp.sum(ahead & (classes != label[:, None]), axis=-1)
    counts = {"photos": jnp.sum(mask)}
    for name, best in (("top1", 1), ("top5", 5)):
        counts[name] = jnp.sum((rank < best) & mask & jnp.isfinite(mine[:, 0]))
    if confusion:
        table = jnp.zeros((len(classes),) * 2, jnp.int32)
        counts["confusion"] = table.at[label, jnp.argmax(logits, axis=-1)].add(mask)
    return counts


def inference(model: Backbone, *, batch_size: int) -> tuple[Any, tuple]:
    """What counts, compiled, and its arguments, with noise in place of photos."""
    graphdef, state = nnx.split(model)
    shape = (batch_size, *model.config.image_shape)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "label": np.zeros(batch_size, np.int32),
        "mask": np.ones(batch_size, bool),
    }
    return _count, (graphdef, state, batch, jax.random.key(0), PLAIN, False)
