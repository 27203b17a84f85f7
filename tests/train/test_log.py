"""The log: what is written where, and what a resumed run keeps of it."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest

from train.engine.log import COLUMNS, Log, open_sinks, read_log

METRICS = ("top1",)


class Kept(list):
    """A sink in memory."""

    def write(self, step, numbers):
        self.append((step, numbers))

    def close(self):
        self.append("closed")


def rows(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_entry_is_in_both_files_and_every_sink(tmp_path):
    sink = Kept()
    log = Log(tmp_path, 0, METRICS, [sink])
    log.write(step=2, loss=1.5, lr=1e-3)
    log.write(step=4, top1=0.25)
    log.write(step=6, unreadable_photos=["a.jpg"])
    log.close()
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert entries[:2] == [{"step": 2, "loss": 1.5, "lr": 1e-3}, {"step": 4, "top1": 0.25}]
    assert entries[2] == {"step": 6, "unreadable_photos": ["a.jpg"]}
    assert sink == [(2, {"loss": 1.5, "lr": 1e-3}), (4, {"top1": 0.25}), (6, {}), "closed"]
    first, second, third = rows(tmp_path)
    assert third["step"] == "6" and not any(v for k, v in third.items() if k != "step")
    assert tuple(first) == (*COLUMNS, *METRICS)
    assert {k: float(v) for k, v in first.items() if v} == entries[0]
    assert {k: float(v) for k, v in second.items() if v} == entries[1]


def test_a_resumed_run_drops_what_it_does_again_and_what_a_kill_left_half(tmp_path):
    log = Log(tmp_path, 0, METRICS)
    for step in (2, 4, 6):
        log.write(step=step, loss=float(step))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [2, 4, 6]
    Log(tmp_path, 4, METRICS).write(step=6, loss=60.0)
    assert [entry["loss"] for entry in read_log(tmp_path / "log.jsonl")] == [2, 4, 60]
    assert [float(row["loss"]) for row in rows(tmp_path)] == [2, 4, 60]


@pytest.mark.parametrize("line", [b"\0\0\0", b"{\xff", b"3", b"{}", b'{"step": "one"}'])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n' + line + b'\n{"step": 3, "loss": 2.0}\n')
    with pytest.raises(ValueError, match=rf"Line 2 of {path} is no entry of a log; delete"):
        read_log(path)
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n' + line)
    assert read_log(path) == [{"step": 1, "loss": 2.5}]


def test_tensorboard_gets_the_numbers(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    (sink,) = open_sinks(tmp_path, {}, None)
    for step in (3, 6):
        sink.write(step, {"loss": step / 8})
    sink.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = [(tensor.step, tensor.tensor_proto.float_val[0]) for tensor in events.Tensors("loss")]
    assert told == [(3, 0.375), (6, 0.75)]


def test_weights_and_biases_is_asked_for_by_project(tmp_path, monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda numbers, step: calls.append((step, numbers)),
        finish=lambda: calls.append("finished"),
    )

    def init(**options):
        calls.append(options)
        return run

    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    assert open_sinks(tmp_path, {}, None) == []
    (sink,) = open_sinks(tmp_path, {"seed": 3}, "vim")
    sink.write(5, {"loss": 2.0})
    sink.close()
    options, *rest = calls
    assert options["project"] == "vim" and options["config"] == {"seed": 3}
    assert rest == [(5, {"loss": 2.0}), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        open_sinks(tmp_path, {}, "vim")
