"""What a training step costs: on the devices, and on the host beside them."""

import dataclasses
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from rich.table import Table

from kernels.host_memory import keep_freed_memory
from ssmjax import command_line, terminal
from train import cli
from train.config import Config
from train.engine.learner import learner_of
from train.hosts.devices import make_mesh, place_batch
from train.tasks.task import open_task


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
      config: a Python file that defines `config = Config(...)`, from `configs/`; its weights and
        photos are not needed.
      steps: how many are timed, after two that are not.
    """

    config: Path
    steps: int = 10


def main() -> None:
    """The command: measure, print a table of medians."""
    keep_freed_memory()
    config, options = cli.parse(Config, BenchOptions, __doc__ or "")
    table = Table("of a step", "ms", "images/s")
    for name, seconds in measure(config, options.steps).items():
        table.add_row(name, f"{1000 * seconds:.2f}", f"{config.optim.batch_size / seconds:,.0f}")
    terminal.console().print(table)


def measure(config: Config, steps: int) -> dict[str, float]:
    """Seconds of a step's parts, medians; fresh parameters and noise in place of photos."""
    mesh, task = make_mesh(), open_task(config)
    model = task.create(None, None)
    state, step = learner_of(task, model).start(mesh, fsdp=False)
    rng = np.random.default_rng(0)
    batch = {name: np.zeros(a.shape, a.dtype) for name, a in task.step_batch(model).items()}
    batch["image"] = rng.integers(0, 256, batch["image"].shape, np.uint8)
    times: dict[str, list[float]] = {"sending a batch": [], "starting": [], "the devices' work": []}
    for _ in range(2 + steps):
        marks = [time.perf_counter()]
        placed = place_batch(batch, mesh)
        marks.append(time.perf_counter())
        state, _ = step(state, placed)
        marks.append(time.perf_counter())
        jax.block_until_ready(state)
        marks.append(time.perf_counter())
        for name, first, last in zip(times, marks, marks[1:], strict=False):
            times[name].append(last - first)
    return {name: statistics.median(seconds[2:]) for name, seconds in times.items()}


if __name__ == "__main__":
    command_line.run(main)
