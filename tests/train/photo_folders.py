"""A folder of photos of two classes, and what becomes of it."""

from pathlib import Path

import pytest

from train.config import DataConfig
from train.data.fetching.fetch import DataError
from train.data.sources.source import open_split

COUNTS = {"train/cat": 5, "train/dog": 7, "val/cat": 2, "val/dog": 1}


def write_pets(tmp_path):
    """A folder of two splits and two classes; the photos' bytes are not looked at."""
    for place, count in COUNTS.items():
        (tmp_path / "pets" / place).mkdir(parents=True)
        for n in range(count):
            (tmp_path / "pets" / place / f"{n}.JPEG").write_bytes(f"{place}/{n}".encode())
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("no photo")
    return DataConfig(
        source="folder",
        path=str(tmp_path / "pets"),
        data_dir=str(tmp_path / "data"),
        eval_split="val",
    )


def pets(data):
    return Path(data.path)


def prepared(data):
    """The prepared data sets, by name."""
    return sorted(path.name for path in Path(data.data_dir, "photo_folder").iterdir())


def refuse(data, split, said, classes=()):
    with pytest.raises(DataError, match=said):
        open_split(data, split, classes)
    assert not Path(data.data_dir).exists()


def add(data, *names, content=b"photo"):
    for name in names:
        path = pets(data) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
