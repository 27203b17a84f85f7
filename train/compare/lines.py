"""What the records of each entry come to: means, speed-up, and the dense model beside it."""

import dataclasses
import statistics
from collections.abc import Sequence

from train.compare.config import Key
from train.compare.records import Metrics, Record


@dataclasses.dataclass(frozen=True)
class Line:
    """One entry of the table.

    Attributes:
      facts: its record of speed, or where that was not measured any other.
      zero_shot: the main metric, 0 to 1, where it was measured: once, or once per seed.
      fine_tuned: the main metric, 0 to 1, per seed.
      zero_shot_metrics: every metric, of each of `zero_shot`.
      fine_tuned_metrics: every metric, of each of `fine_tuned`.
      dense: the backbone's dense model; None for itself.
    """

    facts: Record
    zero_shot: tuple[float, ...]
    fine_tuned: tuple[float, ...]
    zero_shot_metrics: tuple[Metrics, ...] = ()
    fine_tuned_metrics: tuple[Metrics, ...] = ()
    dense: "Line | None" = None

    @property
    def key(self) -> Key:
        """Whose line this is."""
        return self.facts.key

    @property
    def accuracy(self) -> tuple[float, ...]:
        """The main metric after the training; of a dense model that had none, as it was given."""
        return self.fine_tuned or (() if self.dense else self.zero_shot)

    @property
    def flops_ratio(self) -> float | None:
        """The dense model's FLOPs over this one's."""
        return self.dense.facts.flops / self.facts.flops if self.dense else None

    @property
    def speedup(self) -> float | None:
        """Images per second over the dense model's; 1 for itself."""
        mine, dense = (line.facts.images_per_second for line in (self, self.dense or self))
        return mine / dense if mine and dense else None

    @property
    def eta(self) -> float | None:
        """The part of the saved FLOPs that became speed: (speed-up - 1) / (FLOPs ratio - 1)."""
        ratio, speedup = self.flops_ratio, self.speedup
        if ratio is None or ratio == 1 or speedup is None:
            return None
        return (speedup - 1) / (ratio - 1)


def lines(records: Sequence[Record]) -> list[Line]:
    """One line per entry, those of a backbone together, in the order of their first records."""
    backbones = list(dict.fromkeys(record.backbone for record in records))
    keys = sorted(
        dict.fromkeys(record.key for record in records), key=lambda k: backbones.index(k.backbone)
    )
    alone = [_line([record for record in records if record.key == key]) for key in keys]
    dense = {line.key.backbone: line for line in alone if line.key.keep_ratio is None}
    return [
        line
        if line.key.keep_ratio is None
        else dataclasses.replace(line, dense=dense.get(line.key.backbone))
        for line in alone
    ]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; a single value has none."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation


def _line(records: Sequence[Record]) -> Line:
    """The line of one entry, as if there were no dense model."""
    return Line(
        facts=next((r for r in records if r.images_per_second is not None), records[0]),
        zero_shot=tuple(r.zero_shot for r in records if r.zero_shot is not None),
        fine_tuned=tuple(r.fine_tuned for r in records if r.fine_tuned is not None),
        zero_shot_metrics=tuple(r.zero_shot_metrics for r in records if r.zero_shot_metrics),
        fine_tuned_metrics=tuple(r.fine_tuned_metrics for r in records if r.fine_tuned_metrics),
    )
