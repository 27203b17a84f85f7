"""`--dry-run`: what a run would do and need, without doing it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ssmjax.analysis.flops import count_parameters, format_flops
from train import optim
from train.config import Config
from train.data.fetch import MissingDataError
from train.devices import check_batch_size, make_mesh
from train.start import NO_PHOTOS, means_of
from train.step import init_state
from train.tasks.task import Model, Task, open_task

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
    task, missing, remarks = open_task(config), [], []
    steps, num_classes = _look_at_data(task, missing, remarks)
    model = _model(task, num_classes, missing)
    mesh, chosen = make_mesh(), config.optim
    check_batch_size(chosen.batch_size // chosen.accumulate, mesh, "optim.batch_size")
    dense = task.flops(task.with_prune(model, None))
    counts = [
        f"{name + ' ' if name != 'total' else ''}{format_flops(count)} multiply-adds an image "
        f"(dense {format_flops(dense[name])})"
        for name, count in task.flops(model).items()
    ]
    total = f"{optim.total_steps(chosen, steps):,}, {steps:,} an epoch" if steps else "unknown"
    facts = {
        "model": ", ".join([f"{count_parameters(model):,} parameters", *counts]),
        "tokens": " > ".join(map(str, task.tokens(model))),
        "steps": total,
        "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
        **_one_step(task, model, steps or 1, mesh.size, fsdp),
    }
    for name, value in facts.items():
        print(f"{name + ':':<10} {value}")
    for sentence in missing:
        print(f"missing:   {sentence}")
    for sentence in remarks:
        print(f"data:      {sentence}")


def _look_at_data(
    task: Task, missing: list[str], remarks: list[str]
) -> tuple[int | None, int | None]:
    """Steps an epoch and number of classes, where the data are there; what was left out."""
    try:
        splits = task.open_splits(())
    except MissingDataError as error:
        missing.append(str(error))
        return None, None
    for split in splits:
        remarks.extend(split.remarks)
    return task.steps_per_epoch(splits[0]), len(splits[0].class_names)


def _model(task: Task, num_classes: int | None, missing: list[str]) -> Model:
    """The model without values."""
    weights = task.config.model.weights
    for path in (weights, task.config.model.classifier):
        if path and not Path(path).exists():
            missing.append(f"There is no weight file {path}.")
    if weights and not Path(weights).exists():
        weights = None
    return nnx.eval_shape(lambda: task.create(num_classes, weights))


def _one_step(task: Task, model: Model, steps: int, devices: int, fsdp: bool) -> dict[str, str]:
    """Shapes of a step, and what it holds on each device: by its shapes, nothing is compiled."""
    chosen, batch = task.config.optim, task.step_batch(model)
    graphdef, params, others = nnx.split(model, nnx.Param, ...)
    means = means_of(task, model, NO_PHOTOS, steps)

    def held(params, batch, others, loss):
        """What one part of a batch keeps between forward and backward pass."""
        key = jax.random.key(0)
        prepared = loss.prepare(batch, key)
        part = jax.tree.map(lambda a: a[:: chosen.accumulate], prepared)
        return jax.vjp(
            lambda p: loss(nnx.merge(graphdef, p, others, copy=True), part, key), params
        )[1]

    def begin(params, others):
        return init_state(nnx.merge(graphdef, params, others), means.optimizer)

    state = jax.eval_shape(begin, params, others)
    residuals = jax.eval_shape(held, params, batch, others, means.loss)
    parameters = _bytes(params)
    fixed = (_bytes(state) + parameters) / (devices if fsdp else 1)  # With the gradients.
    varying = max(0, _bytes(residuals) - parameters) / devices
    shapes = [f"{name} {a.dtype} {list(a.shape)}" for name, a in batch.items()]
    shapes[0] += f", on each device {chosen.batch_size // devices}"
    return {
        "one step": "; ".join([*shapes, *task.outputs(model)]),
        "memory": f"about {(fixed + varying) / GIB:.2f} GiB on each device: {fixed / GIB:.2f} of "
        f"parameters, averages, optimiser state and gradients, {varying / GIB:.2f} kept from the "
        "forward for the backward pass; the compiler's temporary arrays come on top",
    }


def _bytes(tree: Any) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree) if hasattr(a, "dtype"))
