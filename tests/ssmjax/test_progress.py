"""Progress where no terminal is: plain lines, every so often."""

import io

import pytest
from rich.console import Console

from ssmjax import progress
from ssmjax.progress import Lines


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test lets pass."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def lines():
    file = io.StringIO()
    return Lines(Console(file=file, width=20)), lambda: file.getvalue().splitlines()


def test_what_a_task_says_is_a_line_each_time(clock):
    bar, printed = lines()
    with bar:
        task = bar.add_task("training  step", total=75_060, completed=200)
        clock(100)
        bar.update(task, completed=1_200, said="loss 2.310  1,030 images/s")
        clock(3_600)
        bar.update(task, completed=75_060, said="loss [red]1.000  :smile:")
        bar.remove_task(task)
    assert printed() == [
        "training  step 1,200 of 75,060  loss 2.310  1,030 images/s  2 h 3 min left",
        "training  step 75,060 of 75,060  loss [red]1.000  :smile:  0 s left",
    ]
    assert "\r" not in "".join(printed()) and "\x1b" not in "".join(printed())


def test_a_task_that_says_nothing_has_a_line_every_half_minute(clock):
    bar, printed = lines()
    task = bar.add_task("[copy], batch", total=100)
    for _ in range(100):
        clock(1)
        bar.update(task, advance=1)
    assert printed() == [
        "[copy], batch 30 of 100  1 min 10 s left",
        "[copy], batch 60 of 100  40 s left",
        "[copy], batch 90 of 100  10 s left",
    ]


def test_items_are_counted(clock):
    bar, printed = lines()

    def items():
        for number in range(3):
            clock(40)
            yield number

    assert list(bar.track(items(), total=3, description="Preparing 3 photos")) == [0, 1, 2]
    assert printed() and all(line.startswith("Preparing 3 photos ") for line in printed())


def test_without_a_total(clock):
    bar, printed = lines()
    task = bar.add_task("reading", total=None)
    clock(40)
    bar.advance(task, 5)
    assert printed() == ["reading 5"]
