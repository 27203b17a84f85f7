"""The loop: how far the host may be ahead, and what is logged."""

import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.engine import loop
from train.engine.interrupt import Interrupt
from train.engine.log import Log, read_log
from train.engine.loop import fit
from train.engine.profile import Trace
from train.engine.session import Plan
from train.hosts.devices import PREFETCH, InFlight, make_mesh
from train.hosts.runtime import Runtime, bars

PLAN = {
    "total": 12,
    "per_epoch": 6,
    "evaluate_every": 100,
    "log_every": 100,
    "checkpoint_every": 100,
    "max_skipped": 3,
}


class Running:
    """A number that a device is still working out, until it is waited for."""

    def __init__(self, value, running):
        self.value, self.running = value, running
        running.append(self)

    def block_until_ready(self):
        # Devices do one after the other.
        while self in self.running:
            self.running.pop(0)
        return self

    def __float__(self):
        self.block_until_ready()
        return self.value


class Checkpoints(list):
    """In memory."""

    def save(self, state, data_state, score):
        self.append((data_state, score))


@pytest.fixture
def train(tmp_path, monkeypatch):
    """`fit` with a step that takes until it is waited for; what it did."""
    running, sent, most = [], [], []

    def place(batch, mesh):
        sent.append(batch)
        most.append((len(running), len(sent) - len(started)))
        return batch

    started = []

    def step(state, batch):
        started.append(batch)
        result = {
            "loss": Running(float(len(started)), running),
            "grad_norm": 1.0,
            "skipped_in_a_row": 0,
            "lr": 0.5,
        }
        return SimpleNamespace(step=state.step + 1), result

    monkeypatch.setattr(loop, "place_batch", place)

    def run(shapes=((2, 4),), data_state=None, **options):
        plan = Plan(**(PLAN | options))
        batches = ({"image": np.zeros(shape)} for shape in itertools.cycle(shapes))
        checkpoints, log = Checkpoints(), Log(tmp_path, 0, ("accuracy",))
        with Interrupt() as interrupt:
            session: Any = SimpleNamespace(
                job=SimpleNamespace(
                    task=SimpleNamespace(metrics=("accuracy",)),
                    runtime=Runtime(make_mesh(), bars()),
                ),
                plan=plan,
                state=SimpleNamespace(step=0),
                step=step,
                rate=lambda step: 0.5,
                batches=batches,
                evaluate=lambda state: {"accuracy": 0.25},
                log=log,
                checkpoints=checkpoints,
                unreadable=Unreadable(),
                interrupt=interrupt,
                trace=Trace(None, 0),
                data_state=data_state or {},
            )
            fit(session)
        return most, checkpoints, read_log(log.path)

    return run


class Unreadable(list):
    """None are."""

    def note(self, batch):
        pass

    def new_names(self):
        return []


def test_the_host_is_never_far_ahead_of_the_devices(train):
    most, _, entries = train()
    steps, batches = zip(*most, strict=True)
    assert max(steps) == PREFETCH == 2 and max(batches) == PREFETCH
    assert [entry["step"] for entry in entries] == [12, 12]
    assert entries[0]["loss"] == np.mean(range(1, 13))


def test_steps_in_flight_wait_for_the_oldest():
    running, in_flight = [], InFlight()
    first, second, third, fourth = (Running(i, running) for i in range(4))
    for number in (first, second):
        in_flight.add({"loss": number})
    assert running == [first, second, third, fourth]
    in_flight.add({"loss": third})
    assert running == [second, third, fourth]
    in_flight.add(fourth)
    assert running == [third, fourth]
    in_flight = InFlight()
    for _ in range(5):
        in_flight.add(jnp.ones(3))


def test_programs_are_counted_by_all_shapes_of_a_batch(train):
    shapes = ((2, 4), (2, 5), (2, 4))
    _, _, entries = train(shapes, log_every=1, total=3)
    assert [entry["shapes"] for entry in entries if "shapes" in entry] == [1, 2, 2]


def test_checkpoints_know_the_scores_of_their_state(train):
    data_state = {"unlogged": [(5.0, 0)], "other": "thing"}
    options = {"total": 6, "checkpoint_every": 4, "evaluate_every": 6}
    _, checkpoints, entries = train(data_state=data_state, **options)
    (early, no_score), (last, score) = checkpoints
    assert early["metrics"] is None and no_score is None and early["other"] == "thing"
    assert early["unlogged"] == [(5.0, 0), *((float(n), 0) for n in range(1, 5))]
    assert last["metrics"] == {"accuracy": 0.25} and score == 0.25 and last["unlogged"] == []
    assert last["batches"] == 6 and entries[0]["loss"] == np.mean([5, *range(1, 7)])


def test_without_a_terminal_each_entry_of_the_log_is_told(train, capsys):
    train(log_every=4)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("training  step 4 of 12  loss 2.500  ")
    assert all(line.endswith(" left") and "images/s" in line for line in lines)


def test_of_several_processes_the_first_writes_the_log(tmp_path, monkeypatch):
    log = Log(tmp_path, 0, ("accuracy",))
    log.write(step=1, loss=0.5)
    with monkeypatch.context() as second:
        second.setattr(jax, "process_index", lambda: 1)
        other = Log(tmp_path, 0, ("accuracy",))
        other.write(step=1, loss=0.5)
        other.close()
    assert read_log(log.path) == [{"step": 1, "loss": 0.5}]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
