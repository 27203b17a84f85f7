"""The benchmark's contenders compute the same, and its records say what ran."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from kernels.bench import __main__ as bench
from kernels.bench.suites import SUITES, Case

DENSE = Case("small", 2, 9, 9, 6, 3)
PRUNED = Case("small", 2, 7, 11, 6, 3, dtype="bfloat16")


@pytest.mark.parametrize("case", [DENSE, pytest.param(PRUNED, marks=pytest.mark.slow)], ids=str)
def test_every_contender_is_right_or_says_why_not(case):
    records = {record["contender"]: record for record in bench.measure(case, rounds=1)}
    assert {"reference", "associative", "lax.scan", "lax.scan, rematerialised"} <= set(records)
    for record in records.values():
        assert record["kept"] == case.kept and record["case"] == str(case)
        if "refused" in record:
            assert record["contender"].startswith("pallas") and "GPU" in record["refused"]
            continue
        assert record["error"] < (1e-5 if case is DENSE else 1e-2)
        assert min(record[f"{phase}_ms"] for phase in ("forward", "saving", "backward", "both")) > 0
        assert record["memory_bytes"] > 0
    assert "refused" not in records["reference"]


def test_suites_have_the_shapes_of_the_models():
    shapes = {(c.name, c.batch, c.kept, c.channels) for c in SUITES["vim"]}
    assert ("vim_small", 128, 197, 768) in shapes and ("vim_base", 256, 101, 1536) in shapes
    assert {c.kept for c in SUITES["high_resolution"]} == {4096, 3276, 16384, 13107}
    given: dict[str, Any] = PRUNED.inputs(0)
    positions = np.asarray(given["positions"])
    assert positions.shape == (2, 7) and positions.max() < 11
    assert (np.diff(positions, axis=1) > 0).all()
    assert given["u"].dtype == "bfloat16" and given["A"].dtype == "float32"


def test_the_command(capsys, monkeypatch, tmp_path):
    case = {"case": str(DENSE), **dataclasses.asdict(DENSE)}
    times = {f"{phase}_ms": 2.0 for phase in ("forward", "saving", "backward", "both")}
    canned = [
        case | {"contender": "reference", **times, "memory_bytes": 10**6, "error": 1e-7},
        case | {"contender": "pallas_triton", "refused": "No GPU."},
    ]
    monkeypatch.setattr("sys.argv", ["bench", "--suite", "demo", "--rounds", "1", "--save"])
    monkeypatch.setattr(bench, "SUITES", {"demo": (DENSE,)})
    monkeypatch.setattr(bench, "measure", lambda case, rounds: canned)
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    for roof in ("bytes_per_second", "exponentials_per_second"):
        monkeypatch.setattr(bench, roof, lambda: 1e6)
    bench.main()
    printed = capsys.readouterr()
    records = [json.loads(line) for line in printed.out.splitlines()]
    (saved,) = (tmp_path / "results").iterdir()
    assert [json.loads(line) for line in saved.read_text().splitlines()] == records
    assert records[0]["device"] == "cpu" and records[1]["refused"] == "No GPU."
    assert saved.name.startswith("demo-cpu-jax-")
    # 2 * 9 * 6 * 3 exponentials at 1e6 a second take 0.324 ms, 16% of 2 ms.
    assert "16%" in printed.err and "refused" in printed.err
