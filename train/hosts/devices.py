"""Processes, devices, and what lies where on them."""

import collections
import functools
import os
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from train.hosts.options import DistributedOptions
from train.hosts.rendezvous import meet

AXIS = "data"

# Elements from which an array is spread over devices. Smaller ones, such as norms and biases, are
# 1% of a model, and gathering each takes longer than reading it.
SPREAD_FROM = 2**16

PREFETCH = 2  # Batches that are copied to the devices before their step, and steps in flight.

# What srun gives each task; a job's script itself, outside of srun, has some of it only.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")

State = TypeVar("State")


def start_distributed(options: DistributedOptions) -> None:
    """Join the other processes, where there are others; to be called before any other use of jax.

    Without options, tasks that SLURM's `srun` starts find each other by themselves.

    Raises:
      ValueError: options half given or impossible, or processes that do not find each other.
    """
    coordinator, processes, process = options.coordinator, options.processes, options.process
    if coordinator is None and processes is None and process is None:
        if all(name in os.environ for name in _SLURM) and int(os.environ["SLURM_NTASKS"]) > 1:
            jax.distributed.initialize()
        return
    if coordinator is None or processes is None or process is None:
        raise ValueError(
            "--distributed.coordinator, --distributed.processes and --distributed.process go "
            "together; give all three, or none."
        )
    host, colon, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # As IPv6 addresses are written.
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"--distributed.coordinator is {coordinator}; give HOST:PORT, such as node1:12345."
        )
    if processes < 1:
        raise ValueError(f"--distributed.processes is {processes}; it must be at least 1.")
    if not 0 <= process < processes:
        raise ValueError(
            f"--distributed.process is {process}; of {processes} processes, it must be 0 to "
            f"{processes - 1}."
        )
    meet(host, int(port), processes, process)
    jax.distributed.initialize(coordinator, processes, process)


def make_mesh() -> Mesh:
    """All devices of all processes, along one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, mesh: Mesh | AbstractMesh, name: str) -> None:
    """Refuse a batch, of all devices together, that they cannot share evenly.

    Raises:
      ValueError: it is no multiple of their number; the option's `name` is in the message.
    """
    if batch_size % mesh.size:
        above = -(-batch_size // mesh.size) * mesh.size
        raise ValueError(
            f"{name} is {batch_size}; on {mesh.size} devices it must be a multiple of "
            f"{mesh.size}, such as {above}."
        )


def place_state(state: State, mesh: Mesh, fsdp: bool) -> State:
    """Put a tree of arrays on all devices, whole on each or, with `fsdp`, large ones in parts.

    An array of at least `SPREAD_FROM` elements is split along its largest axis that the number of
    devices divides, but not along the blocks of a stack, which the model goes through one by one.
    One without such an axis is whole on each device (fully sharded data parallelism; Zhao et al.,
    arXiv 2304.11277). Every process must have the same values.
    """

    def place(path, array):
        spec = _spec(path, array.shape, mesh.size) if fsdp else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        if getattr(array, "sharding", None) == sharding:
            return array
        whole = np.asarray(array)
        # device_put refuses some arrays, and compares the others over the network, one by one.
        return jax.make_array_from_callback(array.shape, sharding, lambda part: whole[part])

    return jax.tree.map_with_path(place, state)


def whole(state: State, mesh: Mesh) -> State:
    """A tree of arrays that lie on all devices, as copies of which each device has all.

    Every process can read these; of what `place_state` splits, it cannot read what others hold. All
    processes must call this alike.
    """
    return _made_whole(mesh)(state)


def of_this_process(state: State) -> State:
    """A tree of `whole` arrays on this process' first device, to compute with them alone."""
    return jax.tree.map(lambda array: jnp.asarray(np.asarray(array)), state)


class InFlight:
    """The steps that are dispatched and not done, `PREFETCH` at most.

    A step is dispatched long before it is done, and each that waits holds a batch in the devices'
    memory.
    """

    def __init__(self) -> None:
        self._results: collections.deque[Any] = collections.deque()

    def add(self, result: Any) -> None:
        """Take in a step by an array that it makes; wait for the one `PREFETCH` steps before."""
        self._results.append(result)
        if len(self._results) > PREFETCH:
            jax.block_until_ready(self._results.popleft())


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The rows that each process holds, as one batch over all devices, the first process' first.

    The copies to the devices go on while the step before is at work.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def shared_out(batch: State, mesh: Mesh) -> State:
    """Inside `jit`: a tree of arrays that lies as `place_batch` puts it, for `own_rows`."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(AXIS)))


def own_rows(batch: State) -> State:
    """The rows of `shared_out` arrays that this process' devices hold, as numpy arrays."""

    def rows(array: jax.Array) -> np.ndarray:
        parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
        return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

    return jax.tree.map(rows, batch)


@functools.cache
def _made_whole(mesh: Mesh):
    return jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _spec(path, shape: tuple[int, ...], devices: int) -> PartitionSpec:
    stacked = any(getattr(entry, "key", None) == "blocks" for entry in path)
    axes = [axis for axis in range(int(stacked), len(shape)) if shape[axis] % devices == 0]
    if int(np.prod(shape)) < SPREAD_FROM or not axes:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[AXIS if axis == largest else None for axis in range(len(shape))])
