"""Names of classes: whether a data set has those that the weights at hand know, and lists."""

from collections.abc import Sequence

from train.data.fetching.fetch import DataError
from train.data.sources.walk import same_name


def check_known(names: Sequence[str], known: Sequence[str], title: str) -> None:
    """Refuse class names of a data set that differ from those `known` to the weights, if any are.

    Raises:
      DataError: the names or their order differ.
    """
    names, known = [*map(same_name, names)], [*map(same_name, known)]
    if not known or known == names:
        return
    if len(known) != len(names):
        how = (
            f"has {len(names):,} classes ({listed(names)}), the weights know {len(known):,} "
            f"({listed(known)})"
        )
    else:
        at = next(i for i, pair in enumerate(zip(names, known, strict=True)) if len(set(pair)) > 1)
        how = f'calls class {at} "{names[at]}", the weights "{known[at]}"'
    raise DataError(f"{title} {how}: give weights for this data set, or a new head.")


def matched(names: Sequence[str], known: Sequence[str], title: str) -> list[int | None]:
    """Where each known class is among those of a data set to measure on; None where it is not.

    Known are the classes of the weights, or of the data trained on; `names` may have any order.

    Raises:
      DataError: the data set has another class, or several of one name.
    """
    names, known = [*map(same_name, names)], [*map(same_name, known)]
    if names == known:
        return list(range(len(known)))
    if others := [name for name in names if name not in set(known)]:
        raise DataError(
            f"{title} has the classes {listed(others)}, which are not among the {len(known):,} of "
            f"the weights or the training data ({listed(known)}); give weights for this data set."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{title} has several classes of one name: {listed(twice)}; rename them.")
    return [names.index(name) if name in names else None for name in known]


def listed(names: Sequence[str]) -> str:
    """Up to ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
