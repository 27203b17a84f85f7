"""Splits of TFDS data sets: as array_record, as tfrecord, made up by TFDS, and refused ones."""

import json
import pickle
import struct
import subprocess
import sys

import chex
import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from train.config import DataConfig
from train.data.cifar10 import CLASS_NAMES
from train.data.fetching.fetch import DataError
from train.data.sources.source import Split, open_split

PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), np.uint8)
PNGS = [cv2.imencode(".png", photo)[1].tobytes() for photo in PHOTOS]


class Digits(tfds.core.GeneratorBasedBuilder):
    """A data set as TFDS' own are: prepared by someone else, more features than needed."""

    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        features = {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "label": tfds.features.ClassLabel(names=["zero", "one"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for n, png in enumerate(PNGS):
            yield n, {"file_name": f"{n}.png", "image": png, "mask": b"-", "label": n % 2}


class Numbers(Digits):
    """A data set without images."""

    def _info(self):
        features = tfds.features.FeaturesDict({"number": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self):
        yield 0, {"number": 1}


def prepare(kind, data_dir):
    """Prepare a data set and return its folder."""
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    builder = kind(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=offline)
    return data_dir / builder.name / "2.0.0"


def to_tfrecord(folder, lengths):
    """Store the digits as TFDS does with TensorFlow: tfrecord files of `lengths` records."""
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    builder = tfds.builder_from_directory(folder)
    records = list(builder.as_data_source("train", deserialize_method=raw))  # pyright: ignore[reportCallIssue]
    for number, length in enumerate(lengths):
        shard, records = records[:length], records[length:]
        framed = [struct.pack("<QI", len(each), 0) + each + bytes(4) for each in shard]
        path = folder / f"digits-train.tfrecord-{number:05}-of-{len(lengths):05}"
        path.write_bytes(b"".join(framed))
    for old in folder.glob("*array_record*"):
        old.unlink()
    description = folder / "dataset_info.json"
    info = json.loads(description.read_text())
    info["fileFormat"] = "tfrecord"
    info["splits"][0]["shardLengths"] = [str(length) for length in lengths]
    description.write_text(json.dumps(info))


@pytest.fixture(params=["array_record", "tfrecord"])
def digits(request, tmp_path):
    """Where to find the digits, in both formats."""
    folder = prepare(Digits, tmp_path)
    if request.param == "tfrecord":
        to_tfrecord(folder, (4, 2))
    return DataConfig(name="digits", data_dir=str(tmp_path))


def test_encoded_images_labels_and_names(digits):
    split = open_split(digits, "train")
    assert split.class_names == ("zero", "one") and split.num_classes == 2
    assert split.title == 'digits, split "train"'
    assert len(split.source) == 6
    examples = split.source.__getitems__([5, 0, 3])
    assert [example["image"] for example in examples] == [PNGS[5], PNGS[0], PNGS[3]]
    assert [int(example["label"]) for example in examples] == [1, 0, 1]
    assert [split.photo_name(n) for n in (4, 0)] == ["4.png", "0.png"]


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [("train[:50%]", [0, 1, 2]), ("train[3:5]", [3, 4]), ("train[5:]+train[:1]", [5, 0])],
)
def test_part_of_a_split(digits, spec, numbers):
    source = open_split(digits, spec).source
    assert len(source) == len(numbers)
    examples = source.__getitems__(range(len(numbers)))
    assert [example["image"] for example in examples] == [PNGS[n] for n in numbers]


def test_copy_for_a_worker(digits):
    split = pickle.loads(pickle.dumps(open_split(digits, "train[2:]")))
    assert len(split.source) == 4
    assert split.source.__getitems__([1])[0]["image"] == PNGS[3]


NO_TENSORFLOW = """
import sys
from train.config import DataConfig
from train.data.sources.source import open_split

for folder in sys.argv[1:]:
    open_split(DataConfig(name="digits", data_dir=folder), "train").source.__getitems__([1])
assert "tensorflow" not in sys.modules
"""


def test_no_tensorflow(tmp_path):
    """Both formats are read in one process without it."""
    prepare(Digits, tmp_path / "array_record")
    to_tfrecord(prepare(Digits, tmp_path / "tfrecord"), (4, 2))
    folders = tmp_path / "array_record", tmp_path / "tfrecord"
    subprocess.run([sys.executable, "-c", NO_TENSORFLOW, *map(str, folders)], check=True)


@pytest.mark.parametrize("split", ["validation", "train[", "train[:7]", "train[8:9]"])
def test_unknown_split(digits, split):
    with pytest.raises(DataError, match=r'no split ".*"; it has train \(6 photos\)'):
        open_split(digits, split)


def test_split_without_photos(digits):
    with pytest.raises(DataError, match=r'no photos in the split "train\[:0\]"'):
        open_split(digits, "train[:0]")


def test_other_classes_than_the_weights(digits):
    assert open_split(digits, "train", ("zero", "one")).num_classes == 2
    with pytest.raises(DataError, match='calls class 0 "zero", the weights "cat"'):
        open_split(digits, "train", ("cat", "dog"))


def test_damaged_or_missing_file(digits, tmp_path):
    file = min(tmp_path.glob("digits/2.0.0/digits-train*"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="is damaged.* prepare"):
        open_split(digits, "train")
    file.unlink()
    with pytest.raises(DataError, match=f"{file}.* prepare"):
        open_split(digits, "train")


def test_format_without_random_access(tmp_path):
    description = prepare(Digits, tmp_path) / "dataset_info.json"
    description.write_text(description.read_text().replace("array_record", "riegeli"))
    with pytest.raises(DataError, match="stored as riegeli, .* prepare it again"):
        open_split(DataConfig(name="digits", data_dir=str(tmp_path)), "train")


def test_data_set_without_images(tmp_path):
    prepare(Numbers, tmp_path)
    with pytest.raises(DataError, match="has the features number; needed are an Image"):
        open_split(DataConfig(name="numbers", data_dir=str(tmp_path)), "train")


@pytest.mark.parametrize("name", ["imagenet2012", "imagenette/160px-v2", "no_such_set"])
def test_unknown_data_set(tmp_path, name):
    with pytest.raises(DataError, match=f'no data set "{name}" in {tmp_path}: .*tfds build {name}'):
        open_split(DataConfig(name=name, data_dir=str(tmp_path)), "train")


def test_name_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r'data set "a b" cannot be opened: .*"?a b"? failed\.$'):
        open_split(DataConfig(name="a b", data_dir=str(tmp_path)), "train")


def test_photos_made_up_by_tfds(tmp_path):
    data = DataConfig(name="imagenet2012", data_dir=str(tmp_path))
    with tfds.testing.mock_data(num_examples=5):
        split = open_split(data, "validation")
        expected = tfds.builder("imagenet2012").as_data_source("validation")[3]  # pyright: ignore[reportCallIssue]
    assert split.num_classes == 1000 and split.class_names[0] == "n01440764"
    assert len(split.source) == 5 and split.folder is None
    (example,) = pickle.loads(pickle.dumps(split)).source.__getitems__([3])
    photo = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
    chex.assert_trees_all_equal(photo, expected["image"])
    assert example["label"] == expected["label"]
    assert split.photo_name(3) == expected["file_name"]


def test_demo_made_up_by_tfds(tmp_path):
    with tfds.testing.mock_data(num_examples=3):
        split = open_split(DataConfig(data_dir=str(tmp_path)), "train")
    assert len(split.source) == 3 and split.class_names == CLASS_NAMES


def test_photos_without_names_have_numbers():
    class Memory(list):
        def __getitems__(self, keys):
            return [self[key] for key in keys]

    split = Split(Memory([{"image": PNGS[0], "label": 0}] * 3), ("a",), "three photos")
    assert split.photo_name(2) == "2"
