"""Photos that cannot be read: named as they are met, and too many of them stop the run."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from rich.console import Console
from rich.text import Text

from ssmjax.terminal import printable
from train.data.fetching.fetch import DataError
from train.data.prefetch import Batch


class Named(Protocol):
    """A split that can name its photos."""

    @property
    def title(self) -> str:
        """What messages call it."""
        ...

    def photo_name(self, index: int) -> str:
        """The name of one of its photos."""
        ...


class Unreadable:
    """The unreadable photos met so far, each once however often it comes again."""

    def __init__(self, split: Named, limit: int, console: Console, known: Iterable[int] = ()):
        """At most `limit` of a split; `known` ones were met before, as `list(self)` gave them."""
        self._split, self._limit, self._console = split, limit, console
        self._met = set(known)
        self._new: list[str] = []

    def __iter__(self):
        return iter(sorted(self._met))

    def __len__(self) -> int:
        return len(self._met)

    def note(self, batch: Batch) -> None:
        """Take in a batch.

        Raises:
          DataError: more than the limit, naming the last.
        """
        bad = batch["index"][~batch["mask"] & (batch["index"] >= 0)]
        for number in np.unique(bad):
            if int(number) in self._met:
                continue
            self._met.add(int(number))
            name = self._split.photo_name(int(number))
            if len(self._met) > self._limit:
                raise DataError(
                    f"The photo {name} of {self._split.title} cannot be read, nor "
                    f"{len(self._met) - 1} before it: mend or remove it, or allow more with "
                    "--data.max-unreadable."
                )
            self._new.append(name)
            sentence = f"skipped the unreadable photo {name} of {self._split.title}"
            self._console.print(Text(printable(sentence)), soft_wrap=True)  # No name is markup.

    def new_names(self) -> list[str]:
        """Names of those met since this was asked last."""
        names, self._new = self._new, []
        return names
