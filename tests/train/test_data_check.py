"""Counts of the classes: lacking classes, strange labels, and counts that are kept."""

import json
import os

import pytest
import tensorflow_datasets as tfds

from train.config import DataConfig
from train.data.check import COUNTS_FILE, check_classes, remarks
from train.data.fetching.fetch import DataError
from train.data.sources.source import Split, open_split


class Memory(list):
    """Examples of the given labels, and how many of them were read."""

    def __init__(self, labels):
        super().__init__({"image": b"", "label": label} for label in labels)
        self.read = 0

    def __getitems__(self, keys):
        self.read += len(keys)
        return [self[key] for key in keys]


def split_of(labels, folder=None, names=("ant", "bee", "cat"), title='pets, split "train"'):
    return Split(Memory(labels), names, title, folder)


def read_of(split):
    assert isinstance(split.source, Memory)
    return split.source.read


def test_every_class_has_photos():
    split = split_of([2, 1, 0] * 300)  # More than are read at once.
    check_classes(split)
    assert read_of(split) == 900


def test_empty_classes():
    with pytest.raises(DataError, match=r"train\" has no photos of 2 of its 3 classes: ant, cat;"):
        check_classes(split_of([1, 1, 1]))


def test_fewer_photos_than_classes_are_a_trial(capsys):
    check_classes(split_of([1, 1]))
    said = " ".join(capsys.readouterr().err.split())
    assert "no photos of 2 of its 3 classes: good for a trial only" in said


def test_many_empty_classes():
    names = tuple(f"class{n}" for n in range(1000))
    with pytest.raises(DataError, match="no photos of 999 .*class1, .*class10 and 989 more;"):
        check_classes(split_of([0] * 1000, names=names))


@pytest.mark.parametrize("label", [-1, 3])
def test_label_without_class(label):
    with pytest.raises(DataError, match=rf"labels outside 0 to 2, .*: {label} \(2 photos\)"):
        check_classes(split_of([0, 1, 2, label, label]))


def test_counts_are_kept(tmp_path):
    check_classes(split_of([0, 1, 2, 2], tmp_path))
    check_classes(split_of([0, 1, 2], tmp_path, title='pets, split "val"'))
    again = split_of([0, 1, 2, 2], tmp_path)
    check_classes(again)
    assert read_of(again) == 0
    kept = json.loads((tmp_path / COUNTS_FILE).read_text())
    assert kept == {
        'pets, split "train"': {"0": 1, "1": 1, "2": 2},
        'pets, split "val"': {"0": 1, "1": 1, "2": 1},
    }
    assert os.listdir(tmp_path) == [COUNTS_FILE]


def test_kept_counts_refuse_too(tmp_path):
    for read in (3, 0):
        split = split_of([0, 1, 1], tmp_path)
        with pytest.raises(DataError, match="no photos of 1 of its 3 classes: cat"):
            check_classes(split)
        assert read_of(split) == read


def test_counts_of_another_number_of_photos_are_not_used(tmp_path):
    check_classes(split_of([0, 1, 2, 2], tmp_path))
    with pytest.raises(DataError, match="no photos of 1 .* bee"):
        check_classes(split_of([0, 2, 2], tmp_path))


@pytest.mark.parametrize("content", ["", "{", "\x00\xff"])
def test_damaged_counts_are_replaced(tmp_path, content):
    (tmp_path / COUNTS_FILE).write_text(content)
    check_classes(split_of([0, 1, 2], tmp_path))
    kept = json.loads((tmp_path / COUNTS_FILE).read_text())
    assert kept == {'pets, split "train"': {"0": 1, "1": 1, "2": 1}}


def test_folder_that_cannot_be_written(tmp_path):
    split = split_of([0, 1, 2], tmp_path / "missing")
    check_classes(split)
    assert read_of(split) == 3


def test_made_up_photos_may_lack_classes(tmp_path):
    with tfds.testing.mock_data(num_examples=5):
        split = open_split(DataConfig(name="imagenet2012", data_dir=str(tmp_path)), "train")
        check_classes(split)


def test_classes_that_are_not_measured_are_told():
    split = split_of([1, 1, 2], title='pets, split "val"')
    assert list(remarks(split)) == [
        'pets, split "val" has no photos of 1 of its 3 classes, of which scores say nothing: ant.'
    ]
    assert list(remarks(split)) and read_of(split) == 3  # Counted once.
    assert list(remarks(split_of([0, 1, 2]))) == []
    with pytest.raises(DataError, match=r"labels outside 0 to 2, .*: 3 \(1 photos\)"):
        list(remarks(split_of([0, 1, 2, 3])))
