"""The files of a folder, by one rule for all tasks.

- What is hidden is left out at every depth: names that begin with a dot (`.ipynb_checkpoints`, the
  `._x.png` that macOS leaves), and what systems put beside people's files (`@eaDir`, `__MACOSX`,
  `Thumbs.db`).
- Links to folders are followed, after all that is in the folder itself; a folder that was met
  before, on the way of a loop or by another name, and those above are left out.
- Files of other endings, empty ones and links to nothing are left out, but a link to nothing with
  an ending that counts is refused. Endings count in any case: `.JPG` is `.jpg`.

What was left out is counted by its kind, for people to see.
"""

import collections
import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ssmjax.terminal import printable
from train.data.fetching.fetch import DataError

# In lower case; names that begin with a dot are hidden too.
_HIDDEN = {
    *("@eadir", "@recently-snapshot", "@recycle", "#recycle", "#snapshot", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}


_KINDS = 8  # Told by name; folders of other data have hundreds.


class File(NamedTuple):
    """A file: its path below the folder, with "/" between the parts, bytes, mtime in ns."""

    name: str
    size: int
    changed: int


@dataclasses.dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
      files: those that count, sorted by the parts of their names.
      left_out: (name, kind) of each file and folder that does not; kinds are as ".heic",
        "hidden file", "repeated folder" or "broken link".
    """

    files: tuple[File, ...]
    left_out: tuple[tuple[str, str], ...]

    def remark(self, below: str = "") -> str:
        """What was left out, as "5 .heic, 3 hidden files"; empty where nothing was.

        `below` is the beginning of the names that are asked for.
        """
        kinds = collections.Counter(kind for name, kind in self.left_out if name.startswith(below))
        ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        parts = [_counted(count, kind) for kind, count in ordered[:_KINDS]]
        if others := sum(count for _, count in ordered[_KINDS:]):
            parts.append(f"{others:,} of other kinds")
        return ", ".join(parts)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out."""
    return name.startswith(".") or name.lower() in _HIDDEN


def same_name(name: str) -> str:
    """A name as the same for every way to write its accents: macOS takes them apart (NFD)."""
    return unicodedata.normalize("NFC", name)


def check_name(name: str, path: Path) -> None:
    """Refuse the name of a file or folder that cannot be written down as UTF-8.

    Raises:
      DataError: naming it, as well as it can be.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The name of {printable(str(path))} is not UTF-8; rename it, for example by "
            "`convmv -f latin1 -t utf8`."
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether something is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is directly in a folder, sorted by name.

    Raises:
      DataError: it cannot be listed.
    """
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"The folder {printable(str(folder))} cannot be read: {error.strerror}."
        ) from error


def files_of(folder: Path, suffixes: Sequence[str]) -> Found:
    """The files of a folder, at any depth, whose names have one of the endings, as ".png".

    Raises:
      DataError: a folder or file cannot be read, or the name of a file is not UTF-8.
    """
    left_out: list[tuple[str, str]] = []
    files = sorted(_walk(folder, suffixes, left_out), key=lambda file: file.name.split("/"))
    return Found(tuple(files), tuple(left_out))


def present(paths: Sequence[Path], title: str) -> list[Path]:
    """The files that paths name, whichever way the two write accents, in folders too.

    Their folders are listed, which is faster than to ask for each. Messages call by the title what
    names the files.

    Raises:
      DataError: a file is missing.
    """
    folders = {folder: _spelled(folder) for folder in {path.parent for path in paths}}
    there = {folder: _names(spelled, os.DirEntry.is_file) for folder, spelled in folders.items()}
    names = [there[path.parent].get(same_name(path.name)) for path in paths]
    missing = [path for path, name in zip(paths, names, strict=True) if name is None]
    if missing:
        raise DataError(
            f"{title} lacks {len(missing):,} of its {len(paths):,} files, such as {missing[0]}: "
            "unpack it again, or give the folder that holds them."
        )
    return [folders[path.parent] / str(name) for path, name in zip(paths, names, strict=True)]


def _spelled(folder: Path) -> Path:
    """A folder with the accents that the disk has; one that is not there as it is."""
    if folder.is_dir() or folder == folder.parent:
        return folder
    above = _spelled(folder.parent)
    return above / _names(above, is_folder).get(same_name(folder.name), folder.name)


def _names(folder: Path, chosen: Callable[[os.DirEntry[str]], bool]) -> dict[str, str]:
    """{name as in NFC: name} of what is chosen in a folder; empty where it cannot be listed."""
    try:
        return {same_name(entry.name): entry.name for entry in os.scandir(folder) if chosen(entry)}
    except (OSError, ValueError):  # The latter of a name that no file can have.
        return {}


def _walk(root: Path, suffixes: Sequence[str], left_out: list[tuple[str, str]]) -> Iterator[File]:
    """Real folders first, so that a link to one of them is what is left out."""
    waiting, links = collections.deque([""]), collections.deque()
    met = {_identity(folder) for folder in root.resolve().parents}  # Links up are loops too.
    while waiting or links:
        below = waiting.popleft() if waiting else links.popleft()
        identity = _identity(root / below)
        if identity in met:
            left_out.append((below, "repeated folder"))
            continue
        met.add(identity)
        for entry in entries(root / below):
            name = f"{below}{entry.name}"
            if is_folder(entry) and not is_hidden(entry.name):
                (links if entry.is_symlink() else waiting).append(f"{name}/")
            elif kind := _unwanted(entry, suffixes):
                left_out.append((name, kind))
            else:
                check_name(name, root / name)
                if not os.access(entry.path, os.R_OK):
                    raise DataError(f"The file {root / name} cannot be read; repair or delete it.")
                status = entry.stat()
                if status.st_size and entry.is_file():
                    yield File(name, status.st_size, status.st_mtime_ns)
                else:
                    left_out.append((name, "empty file"))


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _unwanted(entry: os.DirEntry[str], suffixes: Sequence[str]) -> str | None:
    """Why something does not count by its name alone; None where it may."""
    if is_hidden(entry.name):
        return "hidden folder" if is_folder(entry) else "hidden file"
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in suffixes:
        return None
    if entry.is_symlink() and not os.path.exists(entry.path):  # Perhaps to a folder of photos.
        return "broken link"
    return printable(suffix) if suffix else "file without an ending"


def _counted(count: int, kind: str) -> str:
    """As "5 .heic", "1 hidden file" or "2 files without an ending"."""
    if count > 1 and not kind.startswith("."):
        kind = re.sub(r"\b(file|folder|link)\b", r"\1s", kind)
    return f"{count:,} {kind}"
