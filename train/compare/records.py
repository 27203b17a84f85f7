"""The CSV of a comparison: everything that was measured, from which tables and plots are made."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ssmjax.atomic import replacing
from train.compare.config import Key

_TEXT = ("backbone", "method", "after_blocks", "tokens", "command", "device", "jax")
_NEEDED = ("backbone", "method", "parameters", "flops", "published_flops")


@dataclasses.dataclass(frozen=True)
class Record:
    """One line: an entry's accuracy with one seed, or its speed and memory.

    Attributes:
      backbone, method, after_blocks, keep_ratio: see `train.compare.config.Key`.
      tokens: image tokens at first and after each stage, as "196>157>126".
      parameters: how many numbers training changes.
      flops: multiply-adds of one image, every scan direction counted.
      published_flops: ours by the papers' count, where Vim has one direction.
      paper_top1, paper_gflops, paper_speedup: see `train.compare.config.Published`.
      command, device, jax: what measured this line, and its version of JAX.
      seed: of the fine-tune; None in a line of speed.
      zero_shot: top-1, 0 to 1, before the fine-tune; None where it is that of the first seed.
      fine_tuned: top-1, 0 to 1, after it; None for dense models.
      batch_size: images a step in the measurement of speed and memory.
      images_per_second: median.
      peak_memory: bytes, by `train.measure.peak_memory`.
    """

    backbone: str
    method: str
    after_blocks: str
    keep_ratio: float | None
    tokens: str
    parameters: int
    flops: int
    published_flops: int
    paper_top1: float | None
    paper_gflops: float | None
    paper_speedup: float | None
    command: str
    device: str
    jax: str
    seed: int | None = None
    zero_shot: float | None = None
    fine_tuned: float | None = None
    batch_size: int | None = None
    images_per_second: float | None = None
    peak_memory: int | None = None

    @property
    def key(self) -> Key:
        """Whose line this is."""
        return Key(self.backbone, self.method, self.after_blocks, self.keep_ratio)


_FIELDS = [field.name for field in dataclasses.fields(Record)]


def read_records(path: Path) -> list[Record]:
    """The lines of a CSV that `append_records` wrote.

    Raises:
      ValueError: there is no such file, or it is another CSV or none.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != _FIELDS:
                raise ValueError(f"its columns are not {', '.join(_FIELDS)}")
            return [_record(row, reader.line_num) for row in reader]
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {path}; give the results.csv of a workdir.") from error
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV of train.compare: {error}.") from error


def append_records(path: Path, records: Sequence[Record]) -> None:
    """Add lines to a CSV, which is made when missing: all of them or none."""
    known = read_records(path) if path.exists() else []
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(record) for record in (*known, *records))


def _record(row: dict[str, str], line: int) -> Record:
    values: dict = {}
    for name in _FIELDS:
        text = row[name]
        if text is None or None in row:
            raise ValueError(f"line {line} has too many or too few values")
        if name in _NEEDED and not text:
            raise ValueError(f"line {line} has no {name}")
        try:
            values[name] = text if name in _TEXT else _number(text)
        except ValueError:
            raise ValueError(f"line {line} has {text!r} for {name}, not a number") from None
    return Record(**values)


def _number(text: str) -> float | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else float(text)
