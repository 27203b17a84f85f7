"""The CSV of a comparison: everything that was measured, from which tables and plots are made."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssmjax.atomic import replacing
from train.compare.config import Key

_TEXT = ("backbone", "method", "after_blocks", "tokens", "command", "device", "jax", "heading")
_JSON = ("zero_shot_metrics", "fine_tuned_metrics")
_NEEDED = ("backbone", "method", "parameters", "flops", "published_flops", "heading")
_LATER = ("heading", "backbone_flops", *_JSON)  # What the first files of this kind do not have.
_RENAMED = {"paper_top1": "paper_score"}

Metrics = Mapping[str, float]  # Every one of a task, by name; 0 to 1, or -1: nothing to find.


@dataclasses.dataclass(frozen=True)
class Record:
    """One line: an entry's accuracy with one seed, or its speed and memory.

    Attributes:
      backbone, method, after_blocks, keep_ratio: see `train.compare.config.Key`.
      tokens: image tokens at first and after each stage, as "196>157>126".
      parameters: how many numbers training changes.
      flops: multiply-adds of one image, every scan direction counted.
      published_flops: ours by the papers' count, where Vim has one direction.
      paper_score, paper_gflops, paper_speedup: see `train.compare.config.Published`.
      command, device, jax: what measured this line, and its version of JAX.
      seed: of the training; None in a line of speed.
      zero_shot: the main metric, 0 to 1, before the training; None where it is that of the first
        seed.
      fine_tuned: the main metric, 0 to 1, after it; None for dense models as they were given.
      batch_size: images a step in the measurement of speed and memory.
      images_per_second: median.
      peak_memory: bytes, by `train.reports.speed.peak_memory`.
      heading: what people call the main metric, in per cent.
      backbone_flops: the part of `flops` that is in the backbone; None of classifiers.
      zero_shot_metrics: every metric, where `zero_shot` is the main one.
      fine_tuned_metrics: as `zero_shot_metrics`.
    """

    backbone: str
    method: str
    after_blocks: str
    keep_ratio: float | None
    tokens: str
    parameters: int
    flops: int
    published_flops: int
    paper_score: float | None
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
    heading: str = "top-1 %"
    backbone_flops: int | None = None
    zero_shot_metrics: Metrics | None = None
    fine_tuned_metrics: Metrics | None = None

    @property
    def key(self) -> Key:
        """Whose line this is."""
        return Key(self.backbone, self.method, self.after_blocks, self.keep_ratio)


_FIELDS = [field.name for field in dataclasses.fields(Record)]


def read_records(path: Path) -> list[Record]:
    """The lines of a CSV that `append_records` wrote.

    Raises:
      ValueError: there is no such file, or it is another CSV or none, or holds no line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [_RENAMED.get(name, name) for name in reader.fieldnames or ()]
            if names not in (_FIELDS, _FIELDS[: -len(_LATER)]):
                raise ValueError(f"its columns are not {', '.join(_FIELDS)}")
            reader.fieldnames = names
            if records := [_record(row, reader.line_num) for row in reader]:
                return records
            raise ValueError("nothing is in it yet")
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
        writer.writerows(map(_cells, (*known, *records)))


def _cells(record: Record) -> dict[str, Any]:
    values = dataclasses.asdict(record)
    return values | {name: json.dumps(values[name]) for name in _JSON if values[name] is not None}


def _record(row: dict[str, str], line: int) -> Record:
    values: dict = {}
    if None in row or None in row.values():
        raise ValueError(f"line {line} has too many or too few values")
    for name, text in row.items():
        if name in _NEEDED and not text:
            raise ValueError(f"line {line} has no {name}")
        try:
            values[name] = text if name in _TEXT else _value(name, text)
        except ValueError:
            kind = "a JSON object" if name in _JSON else "a number"
            raise ValueError(f"line {line} has {text!r} for {name}, not {kind}") from None
    return Record(**values)


def _value(name: str, text: str) -> float | Metrics | None:
    if not text:
        return None
    if name in _JSON:
        found = json.loads(text)
        if isinstance(found, dict):
            return found
        raise ValueError
    return int(text) if text.isdecimal() else float(text)
