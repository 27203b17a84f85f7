"""Processes that meet, and what lies where on their devices."""

import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from tests.train.processes import free_port, run_processes
from tests.train.test_checkpoint import assert_same, restore, save
from train.engine.step import TrainState
from train.hosts import rendezvous
from train.hosts.devices import (
    check_batch_size,
    make_mesh,
    place_batch,
    place_state,
    start_distributed,
)
from train.hosts.options import DistributedOptions
from train.hosts.rendezvous import meet


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (DistributedOptions("here:1", 2), "go together"),
        (DistributedOptions(process=0), "go together"),
        (DistributedOptions("here", 2, 0), "coordinator is here; give HOST:PORT"),
        (DistributedOptions(":12345", 2, 0), "coordinator is :12345; give HOST:PORT"),
        (DistributedOptions("here:port", 2, 0), "coordinator is here:port; give HOST:PORT"),
        (DistributedOptions("here:65536", 2, 0), "coordinator is here:65536; give HOST:PORT"),
        (DistributedOptions("here:1", 0, 0), "processes is 0; it must be at least 1"),
        (DistributedOptions("here:1", 2, 2), "process is 2; of 2 processes, it must be 0 to 1"),
        (DistributedOptions("here:1", 2, -1), "process is -1; of 2 processes, it must be 0 to 1"),
    ],
)
def test_bad_options(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        start_distributed(options)


@pytest.mark.parametrize(
    ("tasks", "step", "joined"), [("2", True, True), ("1", True, False), ("2", False, False)]
)
def test_slurm(monkeypatch, tasks, step, joined):
    """Only tasks that srun started, and several of them: not a job's script, nor a single task."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *options: calls.append(options))
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("SLURM_NTASKS", tasks)
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    if step:
        monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-2]")
    start_distributed(DistributedOptions())
    assert calls == [()] * joined


def outcomes(*visits):
    """What `meet` says to each of these (processes, process) at one port; "" when all is well."""
    port, said = free_port(), {}

    def visit(number, processes, process):
        try:
            meet("localhost", port, processes, process)
            said[number] = ""
        except ValueError as error:
            said[number] = str(error)

    threads = [
        threading.Thread(target=visit, args=(number, *arguments))
        for number, arguments in enumerate(visits)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [said[number] for number in range(len(visits))]


def test_processes_meet():
    assert outcomes((3, 2), (3, 0), (3, 1)) == ["", "", ""]
    assert outcomes((1, 0)) == [""]


def test_processes_that_do_not_meet(monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 1.0)
    late, left = outcomes((4, 0), (4, 2))
    assert late.startswith("Of 4 processes, 1, 3 did not come within 1 s")
    assert left.startswith("Process 2 reached process 0") and "then stopped" in left
    (alone,) = outcomes((2, 1))
    assert alone.startswith("Process 1 cannot reach process 0 at localhost:")
    twice, *_ = outcomes((3, 0), (3, 1), (3, 1))
    assert twice.startswith("A process came as --distributed.process 1 of 3")
    other, _ = outcomes((3, 0), (2, 1))
    assert other.startswith("A process came as --distributed.process 1 of 2, to process 0 of 3")
    taken = sorted(outcomes((2, 0), (2, 0)))
    assert "(Address already in use); choose a free port" in "".join(taken)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("head", (256, 256), ("data", None)),  # Of equal axes, the first.
        ("head", (256, 512), (None, "data")),
        ("head", (1000, 1026), ("data", None)),  # 4 does not divide the largest.
        ("head", (255, 255), ()),  # Too small.
        ("head", (257, 257), ()),  # 4 divides no axis.
        ("blocks", (512, 16, 8), (None, "data", None)),  # Not along the stack.
        ("blocks", (65536, 3), ()),
        ("step", (), ()),
    ],
)
def test_what_is_split(monkeypatch, path, shape, spec):
    """Over 4 devices, which this process need not have."""
    monkeypatch.setattr(jax, "make_array_from_callback", lambda *arguments: arguments[1].spec)
    mesh = AbstractMesh((4,), ("data",))
    tree = {
        "opt_state": ({"params": {path: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}}},)
    }
    (placed,) = jax.tree.leaves(place_state(tree, mesh, fsdp=True), is_leaf=_is_spec)
    assert placed == PartitionSpec(*spec)
    (placed,) = jax.tree.leaves(place_state(tree, mesh, fsdp=False), is_leaf=_is_spec)
    assert placed == PartitionSpec()


def _is_spec(leaf):
    return isinstance(leaf, PartitionSpec)


def test_one_process():
    mesh = make_mesh()
    assert mesh.axis_names == ("data",) and mesh.size == jax.device_count()
    state = large(3)
    assert_same(place_state(state, mesh, fsdp=True), state)
    batch = {"image": np.arange(8 * mesh.size, dtype=np.uint8).reshape(-1, 2, 2, 2)}
    placed = place_batch(batch, mesh)["image"]
    chex.assert_type(placed, jnp.uint8)
    assert isinstance(placed.sharding, NamedSharding)
    assert placed.sharding.spec == PartitionSpec("data")
    chex.assert_trees_all_equal(placed, batch["image"])


def test_batch_that_devices_cannot_share():
    mesh = AbstractMesh((4,), ("data",))
    check_batch_size(8, mesh, "optim.batch_size")
    with pytest.raises(
        ValueError, match="optim.batch_size is 10; on 4 devices it must be .* 4, such as 12"
    ):
        check_batch_size(10, mesh, "optim.batch_size")


SHARED = """
import sys
from pathlib import Path
import chex
import jax
import numpy as np
from train.engine.checkpoint import Checkpoints
from train.hosts.devices import make_mesh, of_this_process, place_batch, place_state
from train.hosts.devices import start_distributed, whole
from train.hosts.options import DistributedOptions

workdir, coordinator, process = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
start_distributed(DistributedOptions(coordinator, 2, process))
from tests.train.test_devices import large  # Makes arrays, so not before.
mesh = make_mesh()
assert mesh.size == 4
template = place_state(large(0), mesh, fsdp=True)
checkpoints = Checkpoints(workdir)
state, place = checkpoints.restore(template, print)
for array, wanted, saved in zip(*map(jax.tree.leaves, (state, template, large(1))), strict=True):
    assert array.sharding == wanted.sharding
    for shard in array.addressable_shards:
        chex.assert_trees_all_equal(shard.data, saved[shard.index])
# What other processes hold comes here too, to be read or computed with alone.
for array, wanted in zip(*map(jax.tree.leaves, (whole(state, mesh), large(1))), strict=True):
    assert array.is_fully_replicated
    chex.assert_trees_all_equal(array, wanted)
once = whole(state.params, mesh)
for array, same in zip(*map(jax.tree.leaves, (place_state(once, mesh, fsdp=False), once))):
    assert array is same
mine = of_this_process(once)["blocks"]["kernel"]
assert mine.devices() == {jax.local_devices()[0]}
twice = jax.jit(lambda a: a * 2)(mine)
chex.assert_trees_all_equal(twice, large(1).params["blocks"]["kernel"] * 2)
kernel = state.params["blocks"]["kernel"].addressable_shards[0].data
batch = place_batch({"label": np.arange(4) + 4 * process}, mesh)["label"]
total = jax.jit(lambda rows: (rows * np.arange(8)).sum())(batch)
print(place, kernel.shape, batch.shape, int(total), flush=True)
checkpoints.save(state._replace(step=state.step + 4), {"first": 50}, 0.5)
checkpoints.close()
"""


def large(step):
    """A state with arrays that are split."""
    kernel = jnp.asarray(np.random.default_rng(step).standard_normal((2, 64, 512)), jnp.float32)
    params = {"blocks": {"kernel": kernel, "bias": jnp.ones(3) * step}}
    counts = jnp.int32(0), jnp.int32(0)
    return TrainState(jnp.int32(step), params, {}, {}, ({"mu": params},), *counts)


@pytest.mark.slow
def test_two_processes_go_on_from_one_and_back(tmp_path):
    """Saved here on one device, restored in parts on four of two processes, and here again."""
    save(tmp_path, 1, 2, make=large)
    (tmp_path / "checkpoints" / "2" / "state" / "_METADATA").unlink()  # Both leave it out.
    coordinator = f"localhost:{free_port()}"
    results = run_processes(
        [("-c", SHARED, tmp_path, coordinator, process) for process in range(2)]
    )
    assert [code for code, *_ in results] == [0, 0], results
    said = [[x for x in out.splitlines() if not x.startswith("[Gloo]")] for _, out, _ in results]
    place = "{'first': 10} (2, 64, 128) (8,) 140"
    assert said[0].pop(0).startswith(f"The checkpoint {tmp_path}/checkpoints/2 is damaged")
    assert said == [[place], [place]]
    restored, reports = restore(tmp_path, large(0))
    assert restored is not None and restored[1] == {"first": 50} and not reports
    assert_same(restored[0], large(1)._replace(step=jnp.int32(5)))
