"""Accuracy of a run's weights: `--checkpoint DIR` is the workdir of `train.finetune`."""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

import ssmjax
from kernels.host_memory import keep_freed_memory
from ssmjax import command_line
from ssmjax.weights import read_metadata
from train import cli
from train.config import Config
from train.data.pipeline import open_split
from train.measure import accuracy, images_per_second


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate.

    Attributes:
      config: a Python file that defines `config = Config(...)`, from `configs/`.
      checkpoint: the workdir of a finished run, or a safetensors file.
    """

    config: str
    checkpoint: str


def main() -> None:
    """The command: load, measure, print one line."""
    keep_freed_memory()
    config, options = cli.parse(Config, EvaluateOptions, __doc__ or "")
    path = Path(options.checkpoint)
    weights = path / "weights.safetensors" if path.is_dir() else path
    metadata = read_metadata(weights)
    model = ssmjax.create_model(weights=weights, prune=config.prune)
    data = config.data
    split = open_split(data.name, data.eval_split, data.data_dir, metadata.class_names)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        value = accuracy(model, split.source, metadata, config, progress, "evaluating")
    (speed,) = images_per_second([model], batch_size=config.eval_batch_size)
    flops = ssmjax.flops(model).total
    print(f"top-1 {100 * value:.2f}%  {speed:.0f} images/s  {flops / 1e6:.1f} M multiply-adds")


if __name__ == "__main__":
    command_line.run(main)
