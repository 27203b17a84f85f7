"""`--dry-run`: what a run would do and need, without doing it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import ssmjax
from ssmjax.analysis.flops import count_parameters, flops, format_flops
from train import optim
from train.config import Config
from train.data.fetch import MissingDataError
from train.data.pipeline import epoch_steps
from train.data.source import open_split
from train.devices import check_batch_size, make_mesh
from train.step import init_state
from train.tasks.classify import make_loss

GIB = 2**30


def dry_run(config: Config, fsdp: bool) -> None:
    """Print config, parameters, FLOPs, an estimate of the memory and the shapes of one step.

    Weights and photos are not needed: what is not there is named. Nothing is computed or written.

    Args:
      config: of the run.
      fsdp: whether parameters and optimiser state would be spread over the devices.

    Raises:
      ValueError: what the run would refuse.
      train.data.fetch.DataError: photos that are there, and that the run would refuse.
    """
    print(json.dumps(dataclasses.asdict(config), indent=1))
    missing = []
    steps, num_classes = _look_at_photos(config, missing)
    model = _model(config, num_classes, missing)
    mesh, chosen = make_mesh(), config.optim
    check_batch_size(chosen.batch_size // chosen.accumulate, mesh, "optim.batch_size")
    dense = model.with_prune(None)
    facts = {
        "model": f"{count_parameters(model):,} parameters, {format_flops(flops(model).total)} "
        f"multiply-adds an image (dense {format_flops(flops(dense).total)})",
        "tokens": " > ".join(map(str, model.config.image_tokens)),
        "steps": f"{round(chosen.epochs * steps):,}, {steps:,} an epoch" if steps else "unknown",
        "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
        **_one_step(config, model, mesh.size, fsdp),
    }
    for name, value in facts.items():
        print(f"{name + ':':<10} {value}")
    for sentence in missing:
        print(f"missing:   {sentence}")


def _look_at_photos(config: Config, missing: list[str]) -> tuple[int | None, int | None]:
    """Steps an epoch and number of classes, where the photos are there."""
    data = config.data
    try:
        split = open_split(data, data.train_split)
    except MissingDataError as error:
        missing.append(str(error))
        return None, None
    open_split(data, data.eval_split, split.class_names)
    return epoch_steps(split, config.optim.batch_size), len(split.class_names)


def _model(config: Config, num_classes: int | None, missing: list[str]) -> ssmjax.Backbone:
    """The model without values."""
    chosen, options = config.model, config.model.overrides()
    weights = chosen.weights
    if weights and not Path(weights).exists():
        missing.append(f"There is no weight file {weights}.")
        weights = None
    if num_classes and (chosen.new_head or not weights):
        options["num_classes"] = num_classes

    def create() -> ssmjax.Backbone:
        return ssmjax.create_model(chosen.name, weights=weights, prune=config.prune, **options)

    return nnx.eval_shape(create)


def _one_step(config: Config, model: ssmjax.Backbone, devices: int, fsdp: bool) -> dict[str, str]:
    """Shapes of a step, and what it holds on each device: by its shapes, nothing is compiled."""
    chosen = config.optim
    size = (chosen.batch_size, *model.config.image_shape)
    batch = {
        "image": jax.ShapeDtypeStruct(size, np.uint8),
        "label": jax.ShapeDtypeStruct(size[:1], np.int32),
    }
    graphdef, params, buffers = nnx.split(model, nnx.Param, ...)
    optimizer = optim.optimizer(chosen, optim.schedule(chosen, 100), model.breaks)
    loss = make_loss(
        chosen,
        config.data.augment,
        num_classes=model.config.num_classes,
        mean=config.data.mean,
        std=config.data.std,
    )

    def held(params, batch, buffers):
        """What one part of a batch keeps between forward and backward pass."""
        key = jax.random.key(0)
        prepared = loss.prepare(batch, key)
        part = jax.tree.map(lambda a: a[:: chosen.accumulate], prepared)
        return jax.vjp(lambda p: loss(nnx.merge(graphdef, p, buffers), part, key), params)[1]

    state = jax.eval_shape(lambda p: init_state(p, optimizer), params)
    residuals = jax.eval_shape(held, params, batch, buffers)
    parameters = _bytes(params)
    fixed = (_bytes(state) + parameters) / (devices if fsdp else 1)  # With the gradients.
    varying = max(0, _bytes(residuals) - parameters) / devices
    images = jax.eval_shape(loss.prepare, batch, jax.random.key(0))
    logits = (chosen.batch_size, model.config.num_classes)
    return {
        "one step": f"image uint8 {list(size)}, on each device {size[0] // devices}; mixed "
        f"{images['image'].dtype} {list(images['image'].shape)}; logits {list(logits)}",
        "memory": f"about {(fixed + varying) / GIB:.2f} GiB on each device: {fixed / GIB:.2f} of "
        f"parameters, averages, optimiser state and gradients, {varying / GIB:.2f} kept from the "
        "forward for the backward pass; the compiler's temporary arrays come on top",
    }


def _bytes(tree: Any) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree) if hasattr(a, "dtype"))
