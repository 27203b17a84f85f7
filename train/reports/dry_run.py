"""`--dry-run`: what a run would do and need, without doing it."""

import dataclasses
import json
from pathlib import Path

from flax import nnx

from kernels import capability
from ssmjax.analysis.flops import count_parameters, format_flops
from ssmjax.terminal import printable
from train.data.fetching.fetch import MissingDataError
from train.engine import optim
from train.engine.learner import check_parts
from train.engine.task import Model, Task
from train.hosts.options import TargetOptions
from train.reports.memory import GIB, Devices, Estimate, devices_of, estimate
from train.tasks.config import TaskConfig
from train.tasks.task import open_task


def dry_run(config: TaskConfig, fsdp: bool, target: TargetOptions) -> None:
    """Print config, parameters, FLOPs, an estimate of the memory and the shapes of one step.

    Weights and photos are not needed: what is not there is named. Nothing is computed or written.

    Args:
      config: of the run.
      fsdp: whether parameters and optimiser state would be spread over the devices.
      target: the devices that the estimate is for.

    Raises:
      ValueError: what the run would refuse.
      train.data.fetching.fetch.DataError: photos that are there, and that the run would refuse.
    """
    print(json.dumps(dataclasses.asdict(config), indent=1))
    task, missing, remarks = open_task(config), [], []
    steps, num_classes = _look_at_data(task, missing, remarks)
    model = _model(task, num_classes, missing)
    devices, chosen = devices_of(target), config.optim
    check_parts(chosen, devices.mesh)
    needed = estimate(task, model, devices, fsdp=fsdp)
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
        "devices": f"{devices.number} x {devices.name}",
        "one step": _one_step(task, model, devices),
        "memory": _memory(needed, devices),
    }
    if needed.total > devices.room:
        facts["warning"] = warning(needed, devices, config, fsdp)
    if target.devices is None and (sentence := capability.shortcoming()):
        facts["remark"] = sentence
    for name, value in facts.items():
        print(f"{name + ':':<10} {value}")
    for sentence in missing:
        print(f"missing:   {sentence}")
    for sentence in remarks:
        print(f"data:      {printable(sentence)}")


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


def _one_step(task: Task, model: Model, devices: Devices) -> str:
    """Shapes of a step."""
    chosen, batch = task.config.optim, task.step_batch(model)
    shapes = [f"{name} {a.dtype} {list(a.shape)}" for name, a in batch.items()]
    shapes[0] += f", on each device {chosen.batch_size // devices.number}"
    return "; ".join([*shapes, *task.outputs(model)])


def _memory(needed: Estimate, devices: Devices) -> str:
    """What a step holds on each device."""
    state, batches, kept, recomputed = (f"{number / GIB:.2f}" for number in needed)
    return (
        f"about {needed.total / GIB:.2f} GiB on each device, with the scan {devices.scan}: {state} "
        f"of parameters, averages, optimiser state and gradients, {batches} of batches, {kept} "
        f"kept from the forward for the backward pass, {recomputed} while a part is recomputed; "
        f"the compiler's temporary arrays come on top; {devices.memory / GIB:.2f} are there"
    )


def warning(needed: Estimate, devices: Devices, config: TaskConfig, fsdp: bool) -> str:
    """That a step may not fit, and what to do."""
    chosen = config.optim
    ways = [] if chosen.remat else ["--optim.remat"]
    if chosen.batch_size % (2 * chosen.accumulate * devices.number) == 0:
        ways.append(f"--optim.accumulate {2 * chosen.accumulate}")
    ways += ["--fsdp"] if devices.number > 1 and not fsdp else []
    ways = ways or ["more devices", "a smaller model"]
    return (
        f"{needed.total / GIB:.2f} GiB do not fit {devices.name} with room for temporary arrays, "
        f"which is {devices.room / GIB:.2f}; give {' or '.join(ways)}."
    )
