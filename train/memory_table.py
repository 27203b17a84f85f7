"""A table of the memory that configs need, by the estimate of `--dry-run`, as Markdown.

A line has the images on each device in a step; GiB on each as it is configured with the scan's GPU
kernel, without and with `optim.remat`, and with the scan that older GPUs run; and the smallest of
the GPUs that leaves room for the compiler's temporary arrays. That of a GPU of 32 GB may be too old
for the kernel, so it must hold both.

    python -m train.memory_table configs/{imagenet,coco,ade20k,composites,trees}_*.py
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import tyro
from flax import nnx

from ssmjax import command_line
from train.cli import load_config
from train.config import Config
from train.engine.learner import check_parts
from train.hosts.fields import AT_LEAST_1, check
from train.hosts.options import TargetOptions
from train.reports.memory import GIB, Devices, devices_of, estimate
from train.tasks.task import open_task

HEADINGS = ("config", "images", "dtype", "remat", "without", "with", "older GPU", "fits")
CLASSES = {32: ("pallas_triton", "reference"), 80: ("pallas_triton",)}  # Scans by gigabytes.


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """Which configs.

    Attributes:
      configs: files that define `config = Config(...)`.
      devices: GPUs that share a batch.
    """

    configs: tyro.conf.Positional[tuple[str, ...]]
    devices: int = 8

    def __post_init__(self) -> None:
        if not self.configs:
            raise ValueError("No config was given; name files, as configs/imagenet_*.py.")
        check(self, "--", AT_LEAST_1, "devices")


def main() -> None:
    """The command: print the table, a line as soon as it is known."""
    options = command_line.parse(TableOptions, description=__doc__ or "")
    for cells in table(options.configs, options.devices):
        print(f"| {' | '.join(cells)} |", flush=True)


def table(configs: tuple[str, ...], devices: int) -> Iterator[tuple[str, ...]]:
    """The table's cells, line by line.

    Raises:
      ValueError: no such config, or a batch that the devices cannot share.
    """
    loaded = {path: load_config(path, Config) for path in configs}
    yield HEADINGS
    yield "---", "--:", "---", "---", *["--:"] * 3, "---"
    for path, config in loaded.items():
        yield line(path, config, devices)


def line(path: str, config: Config, devices: int) -> tuple[str, ...]:
    """The cells of one config. Raises ValueError as `table`."""
    chosen = config.optim
    new, old = gpus(80, "pallas_triton", devices), gpus(80, "reference", devices)
    check_parts(chosen, new.mesh)
    needed = {gpu.scan: total(config, gpu) for gpu in (new, old)}
    other = dataclasses.replace(config, optim=dataclasses.replace(chosen, remat=not chosen.remat))
    pair = needed[new.scan], total(other, new)
    without, with_ = reversed(pair) if chosen.remat else pair
    fits = (
        f"{gigabytes} GB"
        for gigabytes, scans in CLASSES.items()
        if all(needed[scan] <= gpus(gigabytes, scan, devices).room for scan in scans)
    )
    images = chosen.batch_size // devices
    gib = (f"{number / GIB:.1f}" for number in (without, with_, needed[old.scan]))
    dtype, remat = config.model.dtype or "float32", "yes" if chosen.remat else "no"
    return Path(path).stem, str(images), dtype, remat, *gib, next(fits, "none")


def gpus(gigabytes: float, scan: str, devices: int) -> Devices:
    """So many GPUs of a size that run the scan in one way."""
    return devices_of(TargetOptions(devices, gigabytes, scan))  # pyright: ignore[reportArgumentType]


def total(config: Config, devices: Devices) -> int:
    """Bytes that a step of a config needs on each device."""
    task = open_task(config)
    model = nnx.eval_shape(lambda: task.create(None, None))
    return estimate(task, model, devices, fsdp=False).total


if __name__ == "__main__":
    command_line.run(main)
