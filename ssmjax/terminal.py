"""What is shown to people on a terminal, where names are text and nothing else.

Rich reads `[copy]` and `:smile:` in a text as markup; here no text is read so, whoever wrote it.
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ssmjax.progress import Lines, Said

Item = TypeVar("Item")


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints texts as they are, also in tables."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        quiet=quiet,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=stream.isatty(),  # Of which rich would take the environment's word.
    )


def progress(console: Console, *, transient: bool = False) -> Progress:
    """What shows how far each task is: bars, or lines where there is no terminal.

    A task's field `said`, if it has one, stands beside how far it is. The arguments are those of
    `bars`.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        return Lines(console)
    return bars(console, transient=transient)


def bars(console: Console, *, transient: bool) -> Progress:
    """Bars that show how far each task is and how long it will take; titles are text.

    Args:
      console: where they are drawn.
      transient: whether they disappear at the end.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Said(),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=transient)


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Go through `items` under a bar on stderr, which disappears at the end, or beside lines.

    Where stderr is no terminal, the title alone is told.

    Args:
      items: anything that can be gone through once.
      title: of the bar, in which names of the outside world may stand.
      total: how many items there are, where they cannot tell.
    """
    where, title = console(stderr=True), printable(title)
    if not where.is_terminal:  # Whose first line may come late, or never.
        where.print(title, soft_wrap=True)
    with progress(where, transient=True) as shown:
        yield from shown.track(items, total, description=title)


def printable(name: str) -> str:
    r"""A name of the outside world, on one line.

    Control characters, line ends and bytes that are not UTF-8 become escapes, as `\n` and `\xff`.
    """
    return "".join(map(_shown, name))


def _shown(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # How Python reads a byte that is not UTF-8.
        return f"\\x{ord(character) - 0xDC00:02x}"
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return repr(character)[1:-1] if hidden else character
