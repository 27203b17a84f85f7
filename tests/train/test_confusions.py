"""Confusions: names as they are, in print and in CSV, and classes without examples."""

import csv
import io

import chex
import numpy as np
import pytest
from rich.console import Console

from train.evaluate import print_confusions, write_confusion

NAMES = ("[old] cats", ":dog:", 'a "b", c', "crème [/]", "x" * 90)
TABLE = np.array(
    [[5, 3, 0, 0, 0], [2, 4, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
)


@pytest.mark.parametrize("width", [40, 200])
def test_names_are_printed_whole(width):
    file = io.StringIO()
    print_confusions(TABLE, NAMES, Console(file=file, width=width))
    said = file.getvalue()
    if width > 100:
        rows = [line.split("  ") for line in said.splitlines()]
        cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
        # Not of photos: segmentation counts pixels.
        assert ["true class", "taken for", "count", "% of the class"] in cells
        assert ["[old] cats", ":dog:", "3", "37.5"] in cells  # Of 8.
        assert ["crème [/]", 'a "b", c', "1", "100.0"] in cells
    assert said.count("x") == 90 and "…" not in said


def test_csv_can_be_read_again(tmp_path):
    write_confusion(TABLE, NAMES, tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["true class", *NAMES] and [row[0] for row in rows] == list(NAMES)
    chex.assert_trees_all_equal(np.array([row[1:] for row in rows], int), TABLE)
