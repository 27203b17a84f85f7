"""Named arrays for a model: freed of prefixes, brought to its dtypes, or refused in few words."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

FLOATS = ("float16", "bfloat16", "float32", "float64")
KIND = "floating-point numbers of 16, 32 or 64 bits"

# What PyTorch's wrappers put before the names of what they wrap: parallel, compiled, spread,
# recomputed.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_KINDS = ("missing", "unknown", "unused", "unfilled")  # Problems with a name alone.
_FEW, _FIRST, _LONGEST = 20, 3, 300


class MisfitError(ValueError):
    """Arrays do not fit a model.

    Attributes:
      problems: all of them, in words; the message has all where they are few, and of many the
        first ones of each kind and how many more there are.
    """

    def __init__(self, start: str, problems: Sequence[str], prefix: str = ""):
        """Make the message.

        Args:
          start: its beginning.
          problems: each a kind and a name, such as "missing head.bias", or a name and what is
            wrong with it.
          prefix: what all were freed of before they were compared, if anything.
        """
        self.problems = tuple(problems)
        freed = f" (without the prefix {_shortened(prefix)} of the names)" if prefix else ""
        super().__init__(f"{start}{freed}: {_listed(problems)}.")


def unwrapped(arrays: Mapping[Any, Any], known: Collection[str]) -> tuple[dict[str, Any], str]:
    """Arrays by the names of a model, whatever stands before these.

    Args:
      arrays: by name; a prefix that most names have, such as "model." or "module.backbone.", goes
        where more of the known names are found without it, and so do the parts of names that
        PyTorch's wrappers add.
      known: the names of the model.

    Returns:
      The arrays by their new names, and the prefix that went, or nothing.
    """
    names = list(map(str, arrays))
    bare = [".".join(p for p in name.split(".") if p not in _WRAPPERS) for name in names]
    choices = [names, bare]
    for variant in (names, bare):
        choices += [[n.removeprefix(p) for n in variant] for p in _shared_prefixes(variant)]
    known = set(known)
    # No two arrays may get one name; of equal choices the first one changes least.
    sound = [choice for choice in choices if len(set(choice)) == len(choice)]
    best = max(sound, key=lambda choice: len(known.intersection(choice)), default=names)
    changed = [pair for pair in zip(names, best, strict=True) if pair[0] != pair[1]]
    prefix = _removed(*changed[0]) if changed else ""
    return dict(zip(best, arrays.values(), strict=True)), prefix


def in_dtype(name: str, numbers: np.ndarray, dtype: Any) -> np.ndarray:
    """Numbers for the variable `name` in its dtype.

    Counts may be floating-point numbers, as in a file that was cast as a whole, if they are whole.

    Raises:
      ValueError: what is wrong with them, without the name.
    """
    whole = np.issubdtype(dtype, np.integer)
    is_float = numbers.dtype.name in FLOATS
    if not is_float and not (whole and np.issubdtype(numbers.dtype, np.integer)):
        raise ValueError(f"holds {numbers.dtype}, not {'whole numbers' if whole else KIND}")
    if whole and is_float:
        numbers = numbers.astype(np.float64)
        if (numbers != np.trunc(numbers)).any() or not np.isfinite(numbers).all():
            raise ValueError(f"holds {numbers.max()}, which is not a whole number")
    with np.errstate(over="ignore", invalid="ignore"):  # What overflows is found below.
        array = numbers.astype(dtype, copy=False)
    if whole and (array != numbers).any():
        raise ValueError(f"holds {numbers.max()}, more than {np.dtype(dtype)} can")
    if not np.isfinite(array).all():
        raise ValueError("holds values that are not finite")
    if name.endswith(".var") and (array < 0).any():
        raise ValueError("holds negative variances")
    return array


def _shared_prefixes(names: Sequence[str]) -> list[str]:
    """What at least half of the names begin with, up to a dot."""
    counts = Counter(
        name[: place + 1] for name in names for place, sign in enumerate(name) if sign == "."
    )
    return [prefix for prefix, count in counts.items() if 2 * count >= len(names)]


def _removed(before: str, after: str) -> str:
    """What a name has lost."""
    if before.endswith(after):
        return before.removesuffix(after)
    return "".join(f"{part}." for part in _WRAPPERS if part in before.split("."))


def _listed(problems: Sequence[str]) -> str:
    if len(problems) <= _FEW:
        return "; ".join(map(_shortened, problems))
    groups: dict[str, list[str]] = {}
    for problem in problems:
        kind, _, name = problem.partition(" ")
        known = kind in _KINDS
        groups.setdefault(f"{kind} " if known else "", []).append(name if known else problem)
    parts = []
    for kind, group in groups.items():
        first = ", ".join(map(_shortened, group[:_FIRST]))
        more = f" and {len(group) - _FIRST} more" * (len(group) > _FIRST)
        parts.append(f"{kind}{first}{more}")
    return "; ".join(parts)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
