"""The end-of-run report: numbers in the table and the files, and files that are whole or absent."""

import csv
import json
import math
import os
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ssmjax.analysis.figure import FigureError
from train.reports.tables import Row, print_table, write_curve, write_table

ROWS = [
    Row("dense", "dense", (196,), 0.7612, 1_822_858_752, 7_148_008, 100.4, 1.0),
    Row("pruned", "zero-shot", (196, 157, 126), 0.7110, 1_568_666_112, 7_148_008, 131.0, 1.3),
    Row("pruned", "fine-tuned", (196, 157, 126), 0.7750, 9_600_000, 7_148_008),
]


def printed(rows, width=80):
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        print_table(rows, console)
    return console.export_text()


def test_printed_numbers_fit_80_columns():
    text = printed(ROWS)
    assert "…" not in text
    dense, zero_shot, fine_tuned = (
        line.split()
        for line in text.splitlines()
        if ("%" not in line and "G" in line) or "M" in line
    )
    assert dense == ["dense", "76.12", "1.823", "G", "100", "1.00x"]
    assert zero_shot == ["pruned", "71.10", "-5.02", "1.569", "G", "13.9", "131", "1.30x"]
    assert fine_tuned == ["pruned", "77.50", "+1.38", "9.600", "M", "99.5"]
    assert "zero-shot 196>157>126" in text


def test_names_are_not_markup():
    assert "a[bold]b" in printed([Row("a[bold]b", "dense", (4,), 0.5, 10**6, 3)])


def test_without_a_dense_row_nothing_is_compared():
    assert "-5.02" not in printed(ROWS[1:])
    assert "71.10" in printed(ROWS[1:])


def test_files_hold_the_same_numbers(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_table(ROWS, folder)
    assert sorted(os.listdir(folder)) == ["results.csv", "results.json", "results.md"]
    records = json.loads((folder / "results.json").read_text())
    assert records[1] == {
        "name": "pruned",
        "regime": "zero-shot",
        "tokens": "196>157>126",
        "accuracy": 0.711,
        "flops": 1_568_666_112,
        "parameters": 7_148_008,
        "images_per_second": 131.0,
        "speedup": 1.3,
    }
    assert records[2]["speedup"] is None
    with open(folder / "results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    as_text = [{k: "" if v is None else str(v) for k, v in record.items()} for record in records]
    assert table == as_text
    lines = (folder / "results.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {10}
    assert cells[3] == [
        "pruned",
        "zero-shot",
        "196>157>126",
        "71.10",
        "-5.02",
        "1.569 G",
        "13.9",
        "131",
        "1.30x",
        "7,148,008",
    ]


def test_a_bar_in_a_name_stays_in_its_cell(tmp_path):
    write_table([Row("a|b", "dense", (4,), 0.5, 10**6, 3)], tmp_path)
    assert r"| a\|b | dense |" in (tmp_path / "results.md").read_text()


def test_a_failed_write_keeps_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_table(ROWS, tmp_path)
    before = (tmp_path / "results.json").read_text()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(ROWS[:1], tmp_path)
    assert (tmp_path / "results.json").read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.json", "results.md"]


HISTORY = [{"step": step, "loss": 2.3 * math.exp(-step / 100), "lr": 1e-3} for step in range(200)]


def test_curve_shows_loss_and_accuracy(tmp_path):
    pytest.importorskip("matplotlib")
    write_curve(HISTORY, tmp_path / "loss.png")
    write_curve(
        [*HISTORY, {"step": 100, "accuracy": 0.5}, {"step": 199, "accuracy": 0.7}],
        tmp_path / "both.png",
    )
    assert sorted(os.listdir(tmp_path)) == ["both.png", "loss.png"]

    def has_colour(name, colour):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (1050, 600)
            return (np.asarray(picture.convert("RGB")) == colour).all(axis=2).sum() > 200

    blue, orange = (31, 119, 180), (255, 127, 14)
    assert has_colour("loss.png", blue) and not has_colour("loss.png", orange)
    assert has_colour("both.png", blue) and has_colour("both.png", orange)


def test_curve_without_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(FigureError, match=r"pip install 'ssmjax\[plots\]'"):
        write_curve(HISTORY, tmp_path / "curve.png")
    assert not os.listdir(tmp_path)


def test_curve_of_an_empty_log(tmp_path):
    with pytest.raises(FigureError, match="no step with a loss"):
        write_curve([{"step": 1, "accuracy": 0.5}], tmp_path / "curve.png")
