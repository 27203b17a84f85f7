"""Checkpoints: what comes back, which ones stay, and what damage and full disks do."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.train.processes import run_processes
from train.engine.checkpoint import Checkpoints
from train.engine.step import TrainState


def state_of(step, **more):
    """A state whose every number follows from `step`, of several dtypes and with a random key."""
    draw = np.random.default_rng(step).standard_normal
    params = {"blocks": {"kernel": jnp.asarray(draw((2, 16, 8)), jnp.float32)}, **more}
    averaged = jax.tree.map(lambda array: (array / 3).astype(jnp.bfloat16), params)
    counts = jnp.int32(step), jnp.int32(0)
    opt_state = ({"count": jnp.int32(step)}, {"key": jax.random.key(step), "none": None})
    return TrainState(jnp.int32(step), params, averaged, {}, opt_state, *counts)


def assert_same(ours, theirs):
    chex.assert_trees_all_equal_dtypes(ours, theirs)
    chex.assert_trees_all_equal(ours, theirs)


def save(workdir, *steps, keep=2, make=state_of):
    """Checkpoints of these steps, or of these (step, accuracy)."""
    checkpoints = Checkpoints(workdir, keep=keep)
    for entry in steps:
        step, accuracy = entry if isinstance(entry, tuple) else (entry, None)
        checkpoints.save(make(step), {"first": 10 * step}, accuracy)
    checkpoints.close()


def restore(workdir, template=None):
    """What a new process would go on with, and what it would say about the others."""
    reports = []
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.restore(template or state_of(0), reports.append)
    checkpoints.close()
    return restored, reports


def kept(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 3, 5)
    restored, reports = restore(tmp_path)
    assert restored is not None and not reports
    assert_same(restored[0], state_of(5))
    assert restored[1] == {"first": 50}


def test_folders_whose_names_could_be_patterns(tmp_path):
    """Orbax looks for its files by `glob`."""
    for name in ("run [a]", "a*?", "[!b]"):
        save(tmp_path / name, 3, 5)
        restored, reports = restore(tmp_path / name)
        assert restored is not None and not reports
        assert_same(restored[0], state_of(5))
        assert kept(tmp_path / name) == [3, 5]


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path) == (None, [])


def test_the_best_stays_beside_the_newest(tmp_path):
    save(tmp_path, 1, (2, 0.5), 3, (4, 0.7), (5, 0.6), 6, 7)
    assert kept(tmp_path) == [4, 6, 7]
    save(tmp_path, 8, (9, 0.65), 10)  # A later process knows of the best one, too.
    assert kept(tmp_path) == [4, 9, 10]
    save(tmp_path, (11, 0.8), 12, 13, keep=1)
    assert kept(tmp_path) == [11, 13]


def test_restores_onto_other_shardings(tmp_path):
    save(tmp_path, 4)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec(None, "data"))
    template = state_of(0)
    template.params["blocks"]["kernel"] = jax.device_put(template.params["blocks"]["kernel"], split)
    restored, _ = restore(tmp_path, template)
    assert restored is not None
    assert restored[0].params["blocks"]["kernel"].sharding == split
    assert_same(restored[0], state_of(4))


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite(path):
    path.write_bytes(bytes(path.stat().st_size))


def _flip(path):
    """One bit in the middle, which the storage layer takes for another number."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _overwrite, _flip, Path.unlink])
def test_any_damaged_file_is_noticed(tmp_path, damage):
    """Each file in turn: the one before is taken, and the damaged one makes room for a new one."""
    save(tmp_path / "good", 1, 2)
    good = tmp_path / "good" / "checkpoints" / "2"
    files = [
        path.relative_to(good) for item in ("state", "place") for path in good.rglob(f"{item}/**/*")
    ]
    files = [path for path in files if (good / path).is_file()] + [Path("record.json")]
    assert len(files) > 8
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", workdir)
        damage(workdir / "checkpoints" / "2" / file)
        restored, (report,) = restore(workdir)
        assert restored is not None and restored[1] == {"first": 10}, file
        assert f"{workdir}/checkpoints/2 is damaged (" in report
        assert str(file) in report or (file, damage) == (Path("record.json"), _flip)
        assert kept(workdir) == [1]
    assert_same(restored[0], state_of(1))
    save(workdir, 2)
    restored, reports = restore(workdir)
    assert restored is not None and not reports
    assert_same(restored[0], state_of(2))


def test_all_damaged(tmp_path):
    save(tmp_path, 1, 2)
    for step in (1, 2):
        _cut(tmp_path / "checkpoints" / str(step) / "state" / "_METADATA")
    with pytest.raises(ValueError, match=f"No checkpoint in {tmp_path}/checkpoints is sound"):
        restore(tmp_path)
    assert kept(tmp_path) == [1, 2]  # Whoever looks into it still can.


def test_what_a_kill_left_is_ignored(tmp_path):
    save(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    restored, reports = restore(tmp_path)
    assert restored is not None and restored[1] == {"first": 10} and not reports
    save(tmp_path, 2)
    assert kept(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    ("template", "difference"),
    [
        (state_of(0, head=jnp.zeros(3)), "averaged.head is only here"),
        (
            state_of(0)._replace(params={"blocks": {"kernel": jnp.zeros((2, 16, 9))}}),
            r"params.blocks.kernel is float32\[2, 16, 8\] there and float32\[2, 16, 9\] here",
        ),
        (
            state_of(0)._replace(
                params={"blocks": {"kernel": jnp.bfloat16(jnp.zeros((2, 16, 8)))}}
            ),
            r"params.blocks.kernel is float32\[2, 16, 8\] there and bfloat16\[2, 16, 8\] here",
        ),
        (state_of(0)._replace(opt_state=()), "opt_state.0.count is only there"),
        (state_of(0)._replace(step=jnp.float32(0)), r"step is int32\[\] there and float32\[\]"),
    ],
)
def test_another_model_is_an_error_at_once(tmp_path, template, difference):
    save(tmp_path, 1, 2)
    with pytest.raises(ValueError, match=f"checkpoints/2 is of another model .*{difference}"):
        restore(tmp_path, template)
    assert kept(tmp_path) == [1, 2]


FULL = """
import functools, sys
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
import jax.numpy as jnp
import numpy as np
from ssmjax import command_line
from tests.train.test_checkpoint import state_of
from train.engine.checkpoint import Checkpoints

def main(notice):
    checkpoints = Checkpoints(Path(sys.argv[1]) / notice)
    checkpoints.save(state_of(1), {"first": 10})
    checkpoints._manager.wait_until_finished()
    big = jnp.asarray(np.random.default_rng(0).standard_normal((256, 256)), jnp.float32)
    checkpoints.save(state_of(2, big=big), {"first": 20})
    print("the first save returned", end=", ", flush=True)
    if notice == "close":
        checkpoints.close()
    else:
        checkpoints.save(state_of(3), {"first": 30})

setrlimit(RLIMIT_FSIZE, (2**16, 2**16))
for notice in ("close", "save"):
    try:
        command_line.run(functools.partial(main, notice))
    except SystemExit as stop:
        print("status", stop.code, flush=True)
"""


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Where a process had no room for its second checkpoints, and what it wrote, line by line."""
    folder = tmp_path_factory.mktemp("full")
    ((code, out, err),) = run_processes([("-c", FULL, folder)])
    assert code == 0, err
    return folder, out.splitlines(), err.splitlines()


@pytest.mark.parametrize(("number", "notice"), [(0, "close"), (1, "save")])
def test_a_disk_that_takes_no_more(full, number, notice):
    """The error of the writing thread is one line at the next call; what was there is whole."""
    folder, out, err = full
    assert out == ["the first save returned, status 2"] * 2 and len(err) == 2
    assert err[number] == (
        f"error: Cannot write a checkpoint to {folder}/{notice}/checkpoints (File too large); mend "
        "that, and go on with --resume auto."
    )
    restored, reports = restore(folder / notice)
    assert restored is not None and restored[1] == {"first": 10} and not reports


def test_a_disk_with_too_little_left(tmp_path, monkeypatch):
    size = sum(array.nbytes for array in jax.tree.leaves(state_of(1)))
    free = size + 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    save(tmp_path, 1)
    free = size - 1
    with pytest.raises(ValueError, match=f"Cannot write .*{size:,} bytes needed, {free:,} free"):
        save(tmp_path, 2)
    assert kept(tmp_path) == [1]


@pytest.mark.parametrize(
    ("file", "reason"), [("run", "Not a directory"), ("run/checkpoints", "File exists")]
)
def test_a_file_in_place_of_the_folder(tmp_path, file, reason):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(ValueError, match=f"Cannot write .*/run/checkpoints .{reason}.; mend that"):
        Checkpoints(tmp_path / "run")
