"""`PruneConfig`: where a model prunes, how much, by which score, and what the gaps mean."""

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from ssmjax.pruning.strategies import STRATEGIES
from ssmjax.pruning.strategies.strategy import Strategy

ALIGNMENT = ("previous", "zero_token", "none")
CONV = ("compact", "aligned")
REDUCTION = ("drop", "merge", "fuse")


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """Pruning after some blocks, each time keeping the same share of the image tokens present.

    Attributes:
      after_blocks: 1-based blocks after which to prune, increasing.
      keep_ratio: share of the image tokens kept at each stage, in (0, 1]; 1 is the dense model.
      importance: which tokens are kept, by a name in `ssmjax.pruning.strategies`: `clip` (the
        paper's equation 9), `sum`, `l1` or `l2` of the SSM's output; `coverage`, the first of
        these within each neighbourhood; `delta`, the step size; `similarity_local` or
        `similarity_global`, those unlike others; `attention`, what a ViT's class token attends to
        (EViT); `random` or `uniform`, whatever they show.
      alignment: what a pruned position does to the hidden state: `previous` moves it by the step
        of the kept token before (the paper's equation 6), `zero_token` by the step of an
        all-zero token, `none` leaves it (the EViT way).
      conv: in convolutions, kept tokens are neighbours (`compact`) or stay in place among zeros
        (`aligned`).
      reduction: other tokens are gone (`drop`), or averaged into kept ones, each weighted by how
        many patches it stands for (`merge`), or added into one token more, each times its score
        (`fuse`, EViT's way).

    Raises:
      ValueError: naming the field and its valid choices.
    """

    after_blocks: tuple[int, ...]
    keep_ratio: float
    importance: str = "clip"
    alignment: str = "previous"
    conv: str = "compact"
    reduction: str = "drop"

    # What `conv` may be; models that keep pruned tokens' features know more.
    convs: ClassVar[tuple[str, ...]] = CONV

    def __post_init__(self) -> None:
        is_list = isinstance(self.after_blocks, list | tuple)
        blocks = [whole_number(block) for block in self.after_blocks] if is_list else []
        numbers = [block for block in blocks if block is not None and block >= 1]
        if not blocks or blocks != sorted(set(numbers)):
            raise ValueError(
                f"after_blocks is {self.after_blocks!r}; give increasing 1-based block numbers, as "
                "(5, 10, 15)."
            )
        object.__setattr__(self, "after_blocks", tuple(numbers))
        try:
            # By its shortest decimal: 0.8 stays 0.8 where it comes in single precision.
            ratio = float(str(self.keep_ratio))
        except ValueError:
            ratio = math.nan
        if not 0 < ratio <= 1:
            raise ValueError(
                f"keep_ratio is {self.keep_ratio!r}; it must be above 0 and at most 1."
            )
        object.__setattr__(self, "keep_ratio", ratio)
        for field, choices in (
            ("importance", tuple(STRATEGIES)),
            ("alignment", ALIGNMENT),
            ("conv", self.convs),
            ("reduction", REDUCTION),
        ):
            value = getattr(self, field)
            if value not in choices:
                raise ValueError(f"{field} is {value!r}; choose one of {', '.join(choices)}.")

        if self.reduction == "fuse" and not self.strategy.shares:
            able = ", ".join(name for name, strategy in STRATEGIES.items() if strategy.shares)
            raise ValueError(
                f"reduction is 'fuse', which adds tokens up, each times its score; those of "
                f"{self.importance!r} are no shares of a whole, so choose importance {able}."
            )

    @property
    def strategy(self) -> Strategy:
        """What `importance` names."""
        return STRATEGIES[self.importance]

    def count(self, tokens: int) -> int:
        """How many of so many image tokens one stage keeps: `ceil(keep_ratio * tokens)`.

        The ratio is taken as the decimal fraction it was written as, so that 0.55 of 100 is 55.
        """
        return math.ceil(Fraction(str(self.keep_ratio)) * tokens)


def whole_number(value: Any) -> int | None:
    """`value` as an int, if it is one of Python's or numpy's; None for all else and for bools."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return int(value) if is_whole else None


def check_whole(config: Any, *fields: str) -> None:
    """Turn fields of a frozen config into ints; ValueError for what is none of at least 1."""
    for field in fields:
        value = whole_number(getattr(config, field))
        if value is None or value < 1:
            raise ValueError(
                f"{field} is {getattr(config, field)!r}; it must be a whole number of at least 1."
            )
        object.__setattr__(config, field, value)
