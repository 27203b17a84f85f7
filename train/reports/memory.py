"""Whether a training step fits its devices: an estimate by shapes; nothing is computed."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core
from jax.sharding import AbstractMesh

from kernels import capability
from train.engine.learner import learner_of
from train.engine.step import init_state
from train.engine.task import Model, Task
from train.hosts.devices import AXIS
from train.hosts.options import TargetOptions

GIB = 2**30
GPU_SHARE = 0.75  # What JAX takes of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says.
ROOM = 0.75  # What an estimate may take of that; the rest is for the compiler's temporary arrays.
BATCHES = 3  # On a device: that of the step, and two on their way for the next ones.
CHECKPOINT = ("remat2", "checkpoint")  # What versions of JAX call `jax.checkpoint` in programs.


class Devices(NamedTuple):
    """What a step is shared by.

    Attributes:
      number: of all processes together.
      name: of one of them, for people.
      memory: bytes of one of them that a run can take.
      cuda: whether the scan runs there as the GPU kernel; otherwise as "reference".
    """

    number: int
    name: str
    memory: int
    cuda: bool

    @property
    def mesh(self) -> AbstractMesh:
        """As `train.hosts.devices.make_mesh` makes it of them."""
        return AbstractMesh((self.number,), (AXIS,))

    @property
    def scan(self) -> str:
        """The implementation of the scan."""
        return "pallas_triton" if self.cuda else "reference"

    @property
    def room(self) -> int:
        """Bytes that an estimate may take of one device."""
        return int(ROOM * self.memory)


def devices_of(target: TargetOptions) -> Devices:
    """The GPUs that are asked for, or all devices of all processes.

    The memory of the latter is the least of this process' devices.
    """
    if target.devices is not None and target.gigabytes is not None:
        memory = int(GPU_SHARE * target.gigabytes * 1e9)
        cuda = target.scan == "pallas_triton"
        return Devices(target.devices, f"GPU of {target.gigabytes:g} GB", memory, cuda)
    local = jax.local_devices()
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(local)
    memory = min((one.memory_stats() or {}).get("bytes_limit", host) for one in local)
    return Devices(jax.device_count(), local[0].device_kind, memory, capability.has_cuda())


class Estimate(NamedTuple):
    """Bytes on one device where a step needs most: between forward and backward pass.

    Attributes:
      state: parameters, averages, statistics, optimiser state, gradients and a teacher.
      batches: images and labels, of this step and on their way for the next ones.
      kept: what the forward pass keeps for the backward pass.
      recomputed: what the largest part that is recomputed keeps meanwhile: with `optim.remat` of
        a block.
    """

    state: int
    batches: int
    kept: int
    recomputed: int

    @property
    def total(self) -> int:
        """All of it; the compiler's temporary arrays come on top."""
        return sum(self)


def estimate(task: Task, model: Model, devices: Devices, *, fsdp: bool) -> Estimate:
    """What one step of a run needs.

    Args:
      task: of the run.
      model: its model, pruned; shapes are enough.
      devices: what shares a batch, whose parts are multiples of their number.
      fsdp: whether they share parameters and optimiser state too.
    """
    chosen = task.config.optim
    graphdef, params, others = nnx.split(model, nnx.Param, ...)
    learner = learner_of(task, model)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = _first_of(task.step_batch(model), devices.number)
    prepared = jax.eval_shape(lambda *inputs: learner.loss.prepare(*inputs), batch, key)
    part = _first_of(prepared, chosen.accumulate)

    def begin(params, others):
        return init_state(nnx.merge(graphdef, params, others), learner.optimizer)

    def loss_of(params, others, part, key, loss):
        return loss(nnx.merge(graphdef, params, others, copy=True), part, key)

    def held(params, *rest):
        return jax.vjp(lambda params: loss_of(params, *rest), params)[1]

    inputs = params, others, part, key, learner.loss
    # With parts of a batch there are the gradients of a part, and their sum.
    gradients = _bytes(params) * (1 if chosen.accumulate == 1 else 2)
    state = _bytes(jax.eval_shape(begin, params, others)) + gradients + _bytes(learner.loss)
    with capability.assume_cuda(devices.cuda):
        kept = _bytes(jax.eval_shape(held, *inputs)) - _bytes(params)
        program = jax.make_jaxpr(loss_of)(*inputs).jaxpr
        recomputed = max(map(_bytes, _recomputed(program)), default=0)
    return Estimate(
        state=state // (devices.number if fsdp else 1),
        batches=BATCHES * _bytes(batch) + _bytes(prepared),
        kept=max(0, kept),
        recomputed=recomputed,
    )


def _first_of(batch: Any, parts: int) -> Any:
    """Shapes of one of so many equal parts of a batch."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((a.shape[0] // parts, *a.shape[1:]), a.dtype), batch
    )


def _recomputed(program: core.Jaxpr) -> Iterator[Any]:
    """Shapes of what every part of a program keeps that a backward pass runs again."""
    for equation in program.eqns:
        for value in jax.tree.leaves(list(equation.params.values())):
            part = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
            if not isinstance(part, core.Jaxpr):
                continue
            if equation.primitive.name in CHECKPOINT:
                yield _held(part)
            else:
                yield from _recomputed(part)


def _held(part: core.Jaxpr) -> Any:
    """Shapes of what a part of a program keeps for the gradients of all its floating inputs."""
    run = core.jaxpr_as_fun(core.ClosedJaxpr(part, ()))
    arrays: list[Any] = [variable.aval for variable in part.invars]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    floating = [jnp.issubdtype(shape.dtype, jnp.floating) for shape in shapes]

    def keep(*inputs):
        def run_with(*floats):
            rest = iter(floats)
            pairs = zip(inputs, floating, strict=True)
            return run(*(next(rest) if is_float else value for value, is_float in pairs))

        return jax.vjp(run_with, *(a for a, f in zip(inputs, floating, strict=True) if f))[1]

    return jax.eval_shape(keep, *shapes)


def _bytes(tree: Any) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree) if hasattr(a, "dtype"))
