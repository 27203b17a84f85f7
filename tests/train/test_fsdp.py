"""Two processes that share a state: trained, measured, saved, killed and gone on with."""

import json
from collections import Counter

import chex
import pytest
from safetensors.numpy import load_file

from tests.train.conftest import losses
from tests.train.processes import distributed, free_port, run_processes
from tests.train.test_resume import assert_close

pytestmark = pytest.mark.slow

# Wide enough that parameters are spread: `train.hosts.devices.SPREAD_FROM` is 65,536.
WIDE = ("--model.embed-dim", 160, "--optim.epochs", 4, "--optim.lr", 1e-3)
LAST = 20


def test_two_processes_killed_twice_end_on_one_as_one_that_was_not(dense_config_file, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command = ("-m", "train.finetune", "--config", dense_config_file, *WIDE)
    ((code, _, err),) = run_processes([(*command, "--workdir", alone)], timeout=400)
    assert code == 0, err

    def saved():
        names = [p.name for p in (shared / "checkpoints").glob("*") if p.name.isdecimal()]
        return max(map(int, names), default=0)

    def two(until):
        address = f"localhost:{free_port()}"
        given = (*command, "--workdir", shared, "--resume", "auto", "--fsdp")
        given = [(*given, *distributed(address, 2, number)) for number in range(2)]
        return run_processes(given, timeout=400, until=until)

    ends = two(lambda: saved() >= 5)  # Step 5 is the first that is measured.
    assert {code for code, *_ in ends} == {-9}, ends
    first = saved()
    assert 5 <= first < LAST
    ends = two(lambda: saved() > first + 4)
    assert {code for code, *_ in ends} == {-9}, ends
    assert f"going on from step {first}" in ends[0][2]
    assert first < saved() < LAST
    ((code, _, err),) = run_processes([(*command, "--workdir", shared, "--resume", "auto")])
    assert code == 0, err

    entries = [json.loads(line) for line in (shared / "log.jsonl").read_text().splitlines()]
    measured = [entry["step"] for entry in entries if "accuracy" in entry]
    assert measured == [5, 10, 15, 20]
    assert max(Counter(e["step"] for e in entries if "loss" in e).values()) == 1
    assert len((shared / "log.csv").read_text().splitlines()) == 1 + len(entries)
    assert_close(shared, alone)
    best = [load_file(folder / "best.safetensors") for folder in (shared, alone)]
    assert best[0].keys() == best[1].keys()


def test_two_processes_to_the_end(dense_config_file, tmp_path):
    """With what the first alone does after the training; each entry once."""
    address = f"localhost:{free_port()}"
    given = ("-m", "train.finetune", "--config", dense_config_file, *WIDE, "--fsdp")
    given = [
        (*given, "--workdir", tmp_path, *distributed(address, 2, number)) for number in range(2)
    ]
    ends = run_processes(given, timeout=400)
    assert [code for code, *_ in ends] == [0, 0], ends
    assert sorted(losses(tmp_path)) == list(range(2, LAST + 1, 2))
    entries = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(entries) == 10 + 4
    rows = json.loads((tmp_path / "results.json").read_text())
    last = json.loads(entries[-1])
    chex.assert_trees_all_close(
        [row["accuracy"] for row in rows if "best" not in row["regime"]],
        [last["raw_accuracy"], last["accuracy"]],
        rtol=1e-6,
    )
    assert ends[1][2] == "" or "step" not in ends[1][2]
    weights = load_file(tmp_path / "weights.safetensors")
    assert max(array.size for array in weights.values()) >= 2**16
