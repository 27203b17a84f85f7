"""Accuracy and speed of models."""

import statistics
import time
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import Progress

from ssmjax import Vim
from train.data.pipeline import Channels, Source, eval_batches


def accuracy(
    model: Vim,
    source: Source,
    *,
    batch_size: int,
    mean: Channels,
    std: Channels,
    progress: Progress,
    title: str,
    key: jax.Array,
) -> float:
    """Share of a split's photos that the model gets right, each photo once.

    `key` serves models that choose tokens at random; the same key gives the same accuracy.
    """
    graphdef, params = nnx.split(model)
    batches = eval_batches(
        source,
        batch_size=batch_size,
        image_size=model.config.image_shape[0],
        mean=mean,
        std=std,
    )
    task = progress.add_task(title, total=-(-len(source) // batch_size))
    total = jnp.int32(0)
    for index, batch in enumerate(batches):
        total = total + _count(graphdef, params, batch, jax.random.fold_in(key, index))
        progress.update(task, advance=1)
    progress.remove_task(task)
    return int(total) / len(source)


@partial(jax.jit, static_argnums=0)
def _count(graphdef, params, batch, key):
    logits = nnx.merge(graphdef, params)(batch["image"], key=key)
    return jnp.sum((jnp.argmax(logits, axis=-1) == batch["label"]) & batch["mask"])


def images_per_second(models: Sequence[Vim], *, batch_size: int, rounds: int = 11) -> list[float]:
    """Inference speed of each model, measured in turn in this process: medians, synchronised."""
    runs = []
    for model in models:
        graphdef, params = nnx.split(model)
        shape = (batch_size, *model.config.image_shape)
        batch = {
            "image": np.random.default_rng(0).standard_normal(shape, np.float32),
            "label": np.zeros(batch_size, np.int32),
            "mask": np.ones(batch_size, bool),
        }
        runs.append(partial(_count, graphdef, params, batch, jax.random.key(0)))
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run())
            if number > 0:  # The first may compile.
                times.append(time.perf_counter() - start)
    return [batch_size / statistics.median(times) for times in seconds]
