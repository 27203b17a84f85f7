"""How long computations take, side by side."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

Name = TypeVar("Name")


def medians(runs: Mapping[Name, Callable[[], Any]], rounds: int) -> dict[Name, float]:
    """Seconds of each run, the median of so many; all run once in every round: they share noise.

    Args:
      runs: by name; what they return is waited for. Each runs once before the first round, so
        that compilation is not timed.
      rounds: at least 1.

    Raises:
      ValueError: no round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1.")
    for run in runs.values():
        jax.block_until_ready(run())
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
