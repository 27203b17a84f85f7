"""The log of a run: JSON lines and CSV always, TensorBoard and Weights & Biases as asked for."""

import contextlib
import csv
import io
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from ssmjax.atomic import replacing

# The first columns of the CSV; those of what a task measures come after them.
COLUMNS = (
    "step",
    "epoch",
    "loss",
    "lr",
    "grad_norm",
    "images_per_second",
    "waiting",
    "shapes",
    "skipped",
    "unreadable",
)


class Sink(Protocol):
    """What numbers are sent to."""

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Take the numbers of one step."""

    def close(self) -> None:
        """Send what is left."""


class Log:
    """One entry a line in `log.jsonl` and `log.csv`; a resumed run drops what it will do again.

    Of several processes the first writes; the others' files would be the same.
    """

    def __init__(
        self, workdir: Path, resumed_step: int, metrics: Sequence[str], sinks: Sequence[Sink] = ()
    ):
        self.path, self._csv = workdir / "log.jsonl", workdir / "log.csv"
        self._columns, self._sinks = (*COLUMNS, *metrics), sinks
        if jax.process_index() > 0:
            return
        kept = [entry for entry in read_log(self.path) if entry["step"] <= resumed_step]
        with replacing(self.path) as file:
            file.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        with replacing(self._csv) as file:
            header = ",".join(self._columns) + "\n"
            file.write_text(header + "".join(map(self._row, kept)))

    def write(self, **entry: Any) -> None:
        """Add one entry: `step`, numbers named in the columns, and what `log.jsonl` alone gets."""
        if jax.process_index() > 0:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        with self._csv.open("a") as file:
            file.write(self._row(entry))
        numbers = {n: value for n, value in entry.items() if n in self._columns and n != "step"}
        for sink in self._sinks:
            sink.write(int(entry["step"]), numbers)

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()

    def _row(self, entry: dict[str, Any]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        writer.writerow(entry)
        return text.getvalue()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a `log.jsonl`, without a last line that a killed run left unfinished.

    Raises:
      ValueError: another line is no entry, as after a crash of the disk.
    """
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            entry = json.loads(line)
            _ = entry["step"] + 0
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Line {number} of {path} is no entry of a log; delete that line."
            ) from error
        entries.append(entry)
    return entries


def open_sinks(workdir: Path, config: dict[str, Any], wandb: str | None) -> list[Sink]:
    """TensorBoard where it is installed, Weights & Biases where a project is named; in process 0.

    Args:
      workdir: gets the folders `tensorboard` and `wandb`; its name is the run's on W&B.
      config: of the run, for W&B to show.
      wandb: the project on W&B, or None.

    Raises:
      ValueError: a project is named and wandb is not installed.
    """
    sinks: list[Sink] = []
    if jax.process_index() > 0:
        return sinks
    with contextlib.suppress(ImportError):
        sinks.append(_TensorBoard(workdir / "tensorboard"))
    if wandb is not None:
        try:
            sinks.append(_WeightsAndBiases(workdir, config, wandb))
        except ImportError as error:
            raise ValueError(
                f"--wandb is {wandb}, and wandb is not installed; pip install wandb."
            ) from error
    return sinks


class _TensorBoard:
    def __init__(self, folder: Path):
        # Imported where it is needed, as wandb is: both are extras.
        from tensorboard.summary import Writer  # pyright: ignore[reportMissingImports]

        self._writer = Writer(str(folder))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, workdir: Path, config: dict[str, Any], project: str):
        import wandb  # pyright: ignore[reportMissingImports]

        # One workdir is one run, however often it is gone on with.
        number = uuid.uuid5(uuid.NAMESPACE_URL, workdir.absolute().as_uri()).hex
        self._run = wandb.init(
            project=project,
            name=workdir.name,
            dir=str(workdir),
            config=config,
            id=number,
            resume="allow",
        )

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()
