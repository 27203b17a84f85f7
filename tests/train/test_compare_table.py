"""The CSV of a comparison, and the table that is made of it."""

import csv
import dataclasses
import re

import numpy as np
import pytest

from tests.train.conftest import ROOT
from train.compare.lines import lines
from train.compare.records import Record, append_records, read_records
from train.compare.report import as_markdown

FACTS = Record(
    *("net", "dense", "", None, "64", 1000, 200_000_000, 180_000_000, 80.5, 5.1, 1.0),
    *("python -m train.compare --config a.py --workdir b", "cpu", "0.10.2"),
)
PRUNED = dataclasses.replace(
    *(FACTS,),
    **{"method": "a|b", "after_blocks": "2 4", "keep_ratio": 0.5, "tokens": "64>32>16"},
    **{"flops": 150_000_000, "paper_score": 78.8, "paper_gflops": 3.6, "paper_speedup": 1.27},
)
TUNED = (0.701, 0.743, 0.722)


@pytest.fixture
def records():
    speed = {"batch_size": 200, "peak_memory": 5_000_000}
    return [
        dataclasses.replace(FACTS, seed=0, zero_shot=0.75),
        dataclasses.replace(PRUNED, seed=0, zero_shot=0.6, fine_tuned=TUNED[0]),
        dataclasses.replace(PRUNED, seed=1, fine_tuned=TUNED[1]),
        dataclasses.replace(PRUNED, seed=2, fine_tuned=TUNED[2]),
        dataclasses.replace(FACTS, **speed, images_per_second=100.0),
        dataclasses.replace(PRUNED, **speed, images_per_second=130.0),
    ]


def rows_of(text):
    """The cells of every line of a Markdown table."""
    return [
        [cell.strip() for cell in line.replace(r"\|", "/").strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_numbers_of_the_table(records):
    text = as_markdown(records)
    assert text.startswith(f"Made by `{FACTS.command}` on cpu, jax 0.10.2.\n\n")
    headings, _, dense, pruned = rows_of(text)
    tuned = f"{100 * np.mean(TUNED):.2f} ± {100 * np.std(TUNED, ddof=1):.2f}"
    assert list(zip(headings, dense, pruned, strict=True)) == [
        ("backbone", "net", "net"),
        ("method", "dense", "a/b"),
        ("keep", "", "0.5 after 2, 4"),
        ("tokens", "64", "64>32>16"),
        ("zero-shot %", "75.00", "60.00"),
        ("points", "", "-15.00"),
        ("fine-tuned %", "", tuned),
        ("points", "", f"{100 * (np.mean(TUNED) - 0.75):+.2f}"),
        ("seeds", "", "3"),
        ("FLOPs", "200.000 M", "150.000 M"),
        ("fewer %", "", "25.0"),
        ("images/s", "100.0", "130.0"),
        ("batch", "200", "200"),
        ("speed-up", "1.00x", "1.30x"),
        ("eta", "", "0.90"),  # (1.3 - 1) / (200 / 150 - 1)
        ("MB", "5", "5"),
        ("parameters", "1,000", "1,000"),
        ("published %", "80.5", "78.8 (-1.7)"),
        ("published FLOPs", "5.10 G", "3.60 G"),
        ("FLOPs as published", "180.000 M", "180.000 M"),
        ("published speed-up", "1.00x", "1.27x"),
    ]


def test_unfinished_tables(records):
    (line,) = lines(records[1:2])
    assert line.dense is None and line.speedup is None and line.eta is None
    assert "| 70.10 |" in as_markdown(records[1:2])
    assert "Speed and memory: not measured." in as_markdown(records[:2])
    # Nothing was saved, so no part of it became speed.
    same = dataclasses.replace(records[5], flops=FACTS.flops)
    assert lines([records[4], same])[1].eta is None


def test_csv_returns_what_it_was_given(records, tmp_path):
    path = tmp_path / "results.csv"
    append_records(path, records[:2])
    append_records(path, records[2:])
    assert read_records(path) == records
    with path.open(newline="") as file:
        assert [row["fine_tuned"] for row in csv.DictReader(file)][1:4] == list(map(str, TUNED))


@pytest.fixture
def detectors():
    """Of heads that were fresh, with two seeds each."""
    facts = {"heading": "box AP", "backbone_flops": 80_000_000}
    dense = dataclasses.replace(FACTS, **facts)
    pruned = dataclasses.replace(PRUNED, **facts | {"backbone_flops": 30_000_000})
    scores = {
        dense: (((0.01, 0.02), (0.40, 0.60)), ((0.03, 0.04), (0.42, 0.62))),
        pruned: (((0.00, 0.05), (0.30, 0.50)), ((0.02, 0.07), (0.36, 0.52))),
    }
    return [
        dataclasses.replace(
            record,
            seed=seed,
            zero_shot=before[0],
            fine_tuned=after[0],
            zero_shot_metrics={"box_AP": before[0], "box_AP50": before[1], "box_AP_large": -1.0},
            fine_tuned_metrics={"box_AP": after[0], "box_AP50": after[1], "box_AP_large": -1.0},
        )
        for record, seeds in scores.items()
        for seed, (before, after) in enumerate(seeds)
    ]


def test_fresh_heads_are_told_untrained_and_trained_by_every_metric(detectors):
    text = as_markdown(detectors)
    headings, _, dense, pruned, *metrics = rows_of(text)
    found = list(zip(headings, dense, pruned, strict=True))
    assert found[4:12] == [
        ("untrained %", "2.00 ± 1.41", "1.00 ± 1.41"),
        ("points", "", "-1.00"),
        ("trained %", "41.00 ± 1.41", "33.00 ± 4.24"),
        ("points", "", "-8.00"),
        ("seeds", "2", "2"),
        ("FLOPs", "200.000 M", "150.000 M"),
        ("fewer %", "", "25.0"),
        ("backbone FLOPs", "80.000 M", "30.000 M"),
    ]
    assert found[12] == ("fewer %", "", "62.5")
    assert "- untrained: box AP before training" in text and "top-1" not in text
    assert metrics == [
        ["metric %", "net, dense", "net, a/b, 0.5 after 2, 4"],
        ["---", "--:", "--:"],
        ["box_AP", "2.00 → 41.00", "1.00 → 33.00"],
        ["box_AP50", "3.00 → 61.00", "6.00 → 51.00"],
        ["box_AP_large", "-", "-"],
    ]


def test_csv_holds_every_metric(detectors, tmp_path):
    path = tmp_path / "results.csv"
    append_records(path, detectors)
    assert read_records(path) == detectors


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/compare_*.csv")), ids=lambda p: p.stem)
def test_results_make_the_tables_beside_them(path):
    """They are of the first kind of CSV, without headings and metrics."""
    assert as_markdown(read_records(path)) == path.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sentence", "old", "new"),
    [
        ("line 2 has '64k' for parameters, not a number", ",1000,", ",64k,"),
        ("line 2 has no flops", ",200000000,", ",,"),
        ("line 2 has too many or too few values", ",cpu,0.10.2,", ","),
        ("line 2 has '[1]' for zero_shot_metrics, not a JSON object", "box AP,,,", "box AP,,[1],"),
    ],
)
def test_damaged_csv(records, tmp_path, sentence, old, new):
    path = tmp_path / "results.csv"
    append_records(path, [dataclasses.replace(record, heading="box AP") for record in records])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_records(path)


def test_empty_csv(records, tmp_path):
    path = tmp_path / "results.csv"
    append_records(path, records)
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="nothing is in it yet"):
        read_records(path)


def test_a_csv_that_came_through_windows(records, tmp_path):
    """A byte order mark, its line ends and blank lines at the end."""
    append_records(tmp_path / "results.csv", records)
    content = (tmp_path / "results.csv").read_bytes()
    windows = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    (tmp_path / "windows.csv").write_bytes(windows)
    assert read_records(tmp_path / "windows.csv") == records
