"""Accuracy, speed and memory of models."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import Progress

from kernels.timing import medians
from ssmjax import Backbone
from ssmjax.weights import Metadata
from train.config import Config
from train.data.pipeline import Source, eval_batches

Measure = Callable[[Backbone, str], float]  # Of a model and a title to its accuracy.


def accuracy(
    model: Backbone,
    source: Source,
    metadata: Metadata,
    config: Config,
    progress: Progress,
    title: str,
) -> float:
    """Share of a split's photos that the model gets right, each photo once.

    Args:
      model: in inference mode.
      source: encoded examples, as in `train.data.pipeline.Split.source`.
      metadata: of the model's weights, for the normalisation.
      config: gives the batch size, and the seed for models that choose tokens at random.
      progress: shows the photos done, under `title`.
    """
    graphdef, params = nnx.split(model)
    batches = eval_batches(
        source,
        batch_size=config.eval_batch_size,
        image_size=model.config.image_shape[0],
        mean=metadata.mean,
        std=metadata.std,
    )
    key = jax.random.key(config.seed)
    task = progress.add_task(title, total=-(-len(source) // config.eval_batch_size))
    total = jnp.int32(0)
    for index, batch in enumerate(batches):
        total = total + _count(graphdef, params, batch, jax.random.fold_in(key, index))
        progress.update(task, advance=1)
    progress.remove_task(task)
    return int(total) / len(source)


def measurer(source: Source, metadata: Metadata, config: Config, progress: Progress) -> Measure:
    """`accuracy` on one split, said on the progress bar's console as soon as it is known."""

    def measure(model: Backbone, title: str) -> float:
        value = accuracy(model, source, metadata, config, progress, title)
        progress.console.print(f"{title}: {100 * value:.2f}%")
        return value

    return measure


@partial(jax.jit, static_argnums=0)
def _count(graphdef, params, batch, key):
    logits = nnx.merge(graphdef, params)(batch["image"], key=key)
    return jnp.sum((jnp.argmax(logits, axis=-1) == batch["label"]) & batch["mask"])


def images_per_second(
    models: Sequence[Backbone], *, batch_size: int, rounds: int = 11
) -> list[float]:
    """Inference speed of each model, measured in turn in this process: medians, synchronised."""
    runs = {i: partial(_count, *_arguments(model, batch_size)) for i, model in enumerate(models)}
    return [batch_size / seconds for seconds in medians(runs, rounds).values()]


def peak_memory(model: Backbone, *, batch_size: int) -> int:
    """Bytes that inference needs at its peak: parameters, images, results and temporary arrays.

    By the compiled program's own account, on every device: what an accelerator counts at run time
    is the largest of all that the process ever did, and cannot tell one model from another. What
    `images_per_second` compiled is not compiled again.
    """
    compiled = _count.lower(*_arguments(model, batch_size)).compile()
    needed: Any = compiled.memory_analysis()
    return needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes


def _arguments(model: Backbone, batch_size: int) -> tuple:
    """Of `_count`, for noise in place of photos."""
    graphdef, params = nnx.split(model)
    shape = (batch_size, *model.config.image_shape)
    batch = {
        "image": np.random.default_rng(0).standard_normal(shape, np.float32),
        "label": np.zeros(batch_size, np.int32),
        "mask": np.ones(batch_size, bool),
    }
    return graphdef, params, batch, jax.random.key(0)
