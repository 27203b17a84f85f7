"""Runs that are stopped end as if they had not been, and devices change nothing."""

import json
import os
import random
import shutil
import signal
import time

import chex
import pytest
from safetensors.numpy import load_file

from tests.train.conftest import losses
from tests.train.processes import distributed, free_port, run_processes
from train.engine.interrupt import Interrupt


def assert_same_end(workdir, other):
    """Bit by bit: losses, weights, best weights and accuracies."""
    assert losses(workdir) == losses(other)
    for name in ("weights.safetensors", "best.safetensors"):
        ours, theirs = (load_file(folder / name) for folder in (workdir, other))
        chex.assert_trees_all_equal(ours, theirs)
    rows = [json.loads((folder / "results.json").read_text()) for folder in (workdir, other)]
    assert [row["accuracy"] for row in rows[0]] == [row["accuracy"] for row in rows[1]]
    texts = [(folder / "log.csv").read_text().splitlines() for folder in (workdir, other)]
    assert len(texts[0]) == len(texts[1])


@pytest.mark.slow
def test_killed_at_random_moments(command, process, arguments, pruned, tmp_path):
    moments = random.Random(20)
    for _ in range(20):
        started = process(*arguments, "--workdir", tmp_path, "--resume", "auto")
        # Somewhere between the first imports and the end.
        deadline = time.monotonic() + moments.uniform(4, 20)
        while started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        started.kill()
        started.communicate()
    code, _, err = command(*arguments, "--workdir", tmp_path, "--resume", "auto")
    assert code == 0, err
    assert_same_end(tmp_path, pruned)


@pytest.mark.slow
def test_sigterm_to_a_process_saves_and_ends_well(command, process, arguments, pruned, tmp_path):
    started = process(*arguments, "--workdir", tmp_path)
    log = tmp_path / "log.jsonl"
    while started.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.02)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=120)
    assert_goes_on_to_the_same_end(command, arguments, pruned, tmp_path, started.returncode, err)


def test_sigterm_saves_and_ends_well(command, arguments, pruned, tmp_path, monkeypatch):
    """Between two checkpoints, and within an epoch."""
    asked = Interrupt.requested

    def requested(interrupt, step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return asked(interrupt, step)

    monkeypatch.setattr(Interrupt, "requested", requested)
    code, _, err = command(*arguments, "--workdir", tmp_path)
    assert_goes_on_to_the_same_end(command, arguments, pruned, tmp_path, code, err)


def assert_goes_on_to_the_same_end(command, arguments, pruned, workdir, code, err):
    """After a run in `workdir` that SIGTERM stopped."""
    assert code == 0, err
    assert "stopped by SIGTERM after step" in err and "Traceback" not in err
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 2 <= saved < 20 and not (workdir / "weights.safetensors").exists()
    code, _, err = command(*arguments, "--workdir", workdir, "--resume", "auto")
    assert code == 0, err
    assert f"going on from step {saved}" in err
    assert_same_end(workdir, pruned)


def test_a_finished_run_measures_nothing_again(command, arguments, pruned, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(pruned, workdir)
    (workdir / "weights.safetensors").unlink()
    code, _, err = command(*arguments, "--workdir", workdir, "--resume", "auto")
    assert code == 0, err
    lines = err.splitlines()
    assert sum(line.endswith("%, measured at an earlier start") for line in lines) == 5
    assert not any(line.startswith("step ") for line in lines), err
    assert_same_end(workdir, pruned)
    for name in ("results.json", "log.jsonl", "log.csv"):  # Speeds too.
        assert (workdir / name).read_text() == (pruned / name).read_text()


@pytest.mark.slow
def test_a_finished_run_may_become_longer(command, arguments, pruned, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(pruned, workdir)
    longer = (*arguments, "--workdir", workdir, "--resume", "auto", "--optim.epochs", 5)
    code, _, err = command(*longer, "--log-every", 5, "--data.max-unreadable", 1)
    assert code == 0, err
    assert "optim.epochs is 4 there and 5.0 here; the schedule follows the new length\n" in err
    assert "log_every is 2 there and 5 here\n" in err and "going on from step 20" in err
    lines = [line for line in err.splitlines() if line.startswith("training  step 25 of 25  loss ")]
    assert len(lines) == 1 and " images/s  " in lines[0] and lines[0].endswith(" left")
    assert "\r" not in err and "\x1b" not in err
    assert sorted(losses(workdir)) == [*range(2, 21, 2), 25]
    assert json.loads((workdir / "config.json").read_text())["optim"]["epochs"] == 5
    code, _, err = command(*arguments, "--workdir", workdir, "--resume", "auto")
    assert code == 2 and err.count("\n") == 1
    assert "optim.epochs is 5.0 there and 4 here; it may only grow" in err


def test_corrupt_checkpoint_is_skipped(command, arguments, pruned, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(pruned, workdir)
    for path in (workdir / "checkpoints" / "20").rglob("*"):
        if path.is_file() and path.stat().st_size > 0 and "manifest" not in path.name:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, _, err = command(*arguments, "--workdir", workdir, "--resume", "auto")
    assert code == 0, err
    assert "20 is damaged" in " ".join(err.split()) and "going on from step 18" in err
    assert_same_end(workdir, pruned)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_devices_change_nothing(arguments, pruned, tmp_path, monkeypatch, devices):
    flags = os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}"
    monkeypatch.setenv("XLA_FLAGS", " ".join(flags))
    fsdp = ("--fsdp",) if devices == 8 else ()
    ((code, _, err),) = run_processes([("-m", *arguments, "--workdir", tmp_path, *fsdp)])
    assert code == 0, err
    assert_close(tmp_path, pruned)


@pytest.mark.slow
def test_processes_change_nothing(arguments, pruned, tmp_path):
    address = f"localhost:{free_port()}"
    ends = run_processes(
        [("-m", *arguments, "--workdir", tmp_path, *distributed(address, 2, n)) for n in range(2)],
        timeout=400,
    )
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert_close(tmp_path, pruned)


def assert_close(workdir, other):
    ours, theirs = losses(workdir), losses(other)
    assert ours.keys() == theirs.keys() and len(ours) == 10
    for step, loss in ours.items():
        assert abs(loss - theirs[step]) < 1e-5
    (new, old) = (load_file(folder / "weights.safetensors") for folder in (workdir, other))
    chex.assert_trees_all_close(new, old, rtol=1e-7, atol=1e-4)
