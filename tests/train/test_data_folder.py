"""Folders of photos: what is prepared, when it is prepared anew, and refused folders."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.photo_folders import pets, prepared, refuse, write_pets
from train.config import DataConfig
from train.data.fetching.fetch import DataError
from train.data.sources import folder
from train.data.sources.source import open_split


@pytest.fixture
def data(tmp_path):
    return write_pets(tmp_path)


def test_bytes_labels_and_names(data, capsys):
    for spec, classes in (("train", (5, 7)), ("val", (2, 1))):
        split = open_split(data, spec)
        assert split.class_names == ("cat", "dog")
        examples = split.source.__getitems__(range(len(split.source)))
        names = [split.photo_name(n) for n in range(len(examples))]
        cats, dogs = classes
        expected = [f"cat/{n}.JPEG" for n in range(cats)] + [f"dog/{n}.JPEG" for n in range(dogs)]
        assert sorted(names) == expected
        for name, example in zip(names, examples, strict=True):
            assert example["image"] == f"{spec}/{name}".removesuffix(".JPEG").encode()
            assert example["label"] == name.startswith("dog")
    assert capsys.readouterr().out == "" and "tensorflow" not in sys.modules


def test_parts_share_one_data_set_and_have_all_classes(data):
    first, second = open_split(data, "train[:6]"), open_split(data, "train[6:]")
    labels = [
        [int(e["label"]) for e in split.source.__getitems__(range(6))] for split in (first, second)
    ]
    assert sorted(labels[0] + labels[1]) == [0] * 5 + [1] * 7
    assert set(labels[0]) == set(labels[1]) == {0, 1}
    assert len(prepared(data)) == 1


def test_several_shards(data, monkeypatch):
    monkeypatch.setattr(folder, "SHARD_BYTES", 30)  # Of 12 photos of 11 bytes each.
    split = open_split(data, "train")
    assert split.folder is not None
    assert len(list(split.folder.glob("*.array_record-*-of-00005"))) == 5
    assert len({split.photo_name(n) for n in range(12)}) == len(split.source) == 12


def test_others_read_it_by_name(data):
    open_split(data, "val")
    (name,) = prepared(data)
    source = tfds.data_source(
        f"photo_folder/{name}",
        split="val",
        data_dir=data.data_dir,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    assert sorted(e["image"] for e in source) == [b"val/cat/0", b"val/cat/1", b"val/dog/0"]  # pyright: ignore[reportCallIssue]


def test_unchanged_folder_is_prepared_once(data, monkeypatch):
    open_split(data, "train")
    monkeypatch.setattr(folder.PhotoFolder, "_examples", None)
    assert len(open_split(data, "train").source) == 12


CHANGES = {
    "another photo": lambda dog: (dog / "9.jpg").write_bytes(b"new"),
    "a photo fewer": lambda dog: (dog / "0.JPEG").unlink(),
    "another name": lambda dog: (dog / "0.JPEG").rename(dog / "a.JPEG"),
    "another size": lambda dog: (dog / "0.JPEG").write_bytes(b"larger than before"),
    "another time": lambda dog: os.utime(dog / "0.JPEG", (0, 0)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_folder_is_prepared_anew(data, change):
    open_split(data, "train")
    change(pets(data) / "train" / "dog")
    source = open_split(data, "train").source
    assert len(prepared(data)) == 2
    expected = [path.read_bytes() for path in (pets(data) / "train").rglob("*.[jJ]*")]
    found = [example["image"] for example in source.__getitems__(range(len(source)))]
    assert sorted(found) == sorted(expected)


def test_killed_preparation_leaves_no_data_set(data):
    code = (
        "import os, signal\nfrom train.config import DataConfig\n"
        "from train.data.sources import folder, source\n"
        "examples = folder.PhotoFolder._examples\n"
        "def killed(self):\n"
        "    yield next(examples(self))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder.PhotoFolder._examples = killed\n"
        f"source.open_split(DataConfig(source='folder', path={data.path!r}, "
        f"data_dir={data.data_dir!r}, eval_split='val'), 'train')"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(open_split(data, "train").source) == 12
    (name,) = prepared(data)
    assert os.listdir(Path(data.data_dir, "photo_folder", name)) == ["1.0.0"]


def test_labels_follow_the_sorted_folders(data):
    (pets(data) / "train" / "ant").mkdir()
    (pets(data) / "val" / "ant").mkdir()
    for split in ("train", "val"):
        (pets(data) / split / "ant" / "deep").mkdir()
        (pets(data) / split / "ant" / "deep" / "x.png").write_bytes(b"ant")
    split = open_split(data, "val")
    assert split.class_names == ("ant", "cat", "dog")
    examples = split.source.__getitems__(range(4))
    assert {e["image"]: int(e["label"]) for e in examples} == {
        b"ant": 0,
        b"val/cat/0": 1,
        b"val/cat/1": 1,
        b"val/dog/0": 2,
    }
    numbers = [split.photo_name(n) for n in range(4)]
    assert "ant/deep/x.png" in numbers


def test_missing_folder(data):
    os.rename(data.path, data.path + "-moved")
    refuse(data, "train", f"data.path is {data.path}, which is not a folder")


def test_missing_split_folder(data):
    os.rename(pets(data) / "val", pets(data) / "validation")
    said = f'folder {data.path} has no folder "val" .*; it has train, validation'
    refuse(data, "val", said)
    refuse(data, "train", said)  # Before hours go into preparing the training photos.


def test_evaluation_needs_no_training_photos(data):
    os.rename(pets(data) / "train", pets(data) / "elsewhere")
    assert len(open_split(data, "val").source) == 3


def test_split_without_class_folders(data):
    for path in (pets(data) / "val").rglob("*.JPEG"):
        path.unlink()
    for path in (pets(data) / "val").iterdir():
        path.rmdir()
    refuse(data, "val", f"folder {pets(data) / 'val'} is empty; it needs a folder per class")


def test_photos_beside_the_class_folders(data):
    (pets(data) / "val" / "loose.png").write_bytes(b"")
    refuse(data, "val", "holds photos itself, such as loose.png; put each into the folder of its")


def test_empty_classes(data):
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (pets(data) / split / name).mkdir()
            (pets(data) / split / name / "notes.txt").write_text("no photo")
    refuse(data, "train", r"has no photos \(.*\.jpg.*\) of ant, bee: add some")


def test_splits_of_other_classes(data):
    os.rename(pets(data) / "val" / "dog", pets(data) / "val" / "wolf")
    refuse(data, "train", "other classes: only one of them has dog, wolf")
    refuse(data, "val", "other classes: only one of them has dog, wolf")


def test_other_classes_than_the_weights(data):
    refuse(data, "train", 'calls class 0 "cat", the weights "dog"', ("dog", "cat"))
    assert open_split(data, "val", ("cat", "dog")).num_classes == 2


def test_unreadable_photo(data):
    (pets(data) / "train" / "cat" / "gone.jpg").symlink_to("nowhere")
    refuse(data, "train", "gone.jpg cannot be read; repair or delete it")


@pytest.mark.parametrize("split", ["train+val", "train[", "../train"])
def test_split_that_is_no_folder(data, split):
    refuse(data, split, "with source folder it is the name of one folder")


def test_part_out_of_range(data):
    with pytest.raises(DataError, match=r'no split "train\[:99\]"; it has train \(12 photos\)'):
        open_split(data, "train[:99]")


def test_order_is_mixed_and_the_same_each_time(data, tmp_path):
    names = [open_split(data, "train").photo_name(n) for n in range(12)]
    assert names != sorted(names)
    again = DataConfig(**{**vars(data), "data_dir": str(tmp_path / "again")})
    assert [open_split(again, "train").photo_name(n) for n in range(12)] == names
    assert np.unique(names).size == 12
