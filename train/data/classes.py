"""Names of classes: whether a data set has those that the weights at hand know, and lists."""

from collections.abc import Sequence

from train.data.fetch import DataError


def check_known(names: Sequence[str], known: Sequence[str], title: str) -> None:
    """Refuse class names that differ from those that the weights know; none known fits all.

    Args:
      names: of the data set, in the order of the labels.
      known: of the weights, in the order of the outputs.
      title: what messages call the data set.

    Raises:
      DataError: the names or their order differ.
    """
    if not known or tuple(known) == tuple(names):
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


def listed(names: Sequence[str]) -> str:
    """Up to ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
