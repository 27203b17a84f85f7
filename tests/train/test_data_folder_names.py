"""Folders of photos: what is left out and told, and the names of folders and files."""

import dataclasses
import os
import unicodedata

import pytest

from tests.train.photo_folders import add, pets, prepared, refuse, write_pets
from train.data.fetching.fetch import DataError
from train.data.sources import folder
from train.data.sources.source import open_split


@pytest.fixture
def data(tmp_path):
    return write_pets(tmp_path)


def test_what_is_left_out_is_told(data):
    assert open_split(data, "val").remarks == ()
    add(data, "train/cat/1.heic", "train/dog/.ipynb_checkpoints/0.png", "train/dog/._0.png")
    split = open_split(data, "train")
    said = "left out 1 .heic, 1 .txt, 1 hidden file, 1 hidden folder."
    assert split.remarks == (f'{data.path}, split "train": {said}',)
    assert len(split.source) == 12


def test_a_rule_that_changes_what_is_in_it_makes_another_data_set(data, monkeypatch):
    add(data, "train/cat/9.tif")
    assert len(open_split(data, "train").source) == 13
    monkeypatch.setattr(folder, "SUFFIXES", (".jpeg",))
    assert len(open_split(data, "train").source) == 12
    assert len(prepared(data)) == 2


def test_a_class_of_which_all_was_left_out(data):
    add(data, "val/bee/1.heic", "val/bee/2.heic", "train/bee/1.png")
    refuse(data, "val", "of bee: add some, or delete what is no class; left out of bee: 2 .heic")


def test_two_classes_are_not_one_folder(data):
    for split in ("train", "val"):
        (pets(data) / split / "wolf").symlink_to("dog")
    refuse(data, "train", "of wolf: .*; left out of wolf: 1 repeated folder")


def test_class_folders_may_be_links(data):
    (pets(data) / "train" / "dog").rename(pets(data) / "dogs")
    (pets(data) / "train" / "dog").symlink_to("../dogs")
    split = open_split(data, "train")
    labels = [int(e["label"]) for e in split.source.__getitems__(range(12))]
    assert sorted(labels) == [0] * 5 + [1] * 7


def test_classes_are_the_same_however_accents_are_written(data):
    for split, form in (("train", "NFD"), ("val", "NFC")):
        add(data, f"{split}/{unicodedata.normalize(form, 'crème')}/1.png")
    names = ("cat", unicodedata.normalize("NFC", "crème"), "dog")
    for name, label in (("train", 1), ("val", 1)):
        split = open_split(data, name, [unicodedata.normalize("NFD", known) for known in names])
        assert split.class_names == names
        numbers = range(len(split.source))
        (of_new,) = [e for e in split.source.__getitems__(numbers) if e["image"] == b"photo"]
        assert of_new["label"] == label


def test_one_class_in_two_spellings(data):
    for form in ("NFC", "NFD"):
        add(data, f"train/{unicodedata.normalize(form, 'crème')}/1.png")
    refuse(data, "train", "several folders of the class crème, which write its accents in differ")


def test_names_that_are_not_utf8(data):
    add(data, "val/cat/" + os.fsdecode(b"caf\xe9.png"))
    refuse(data, "val", r"The name of .*/val/cat/caf\\xe9.png is not UTF-8")
    add(data, os.fsdecode(b"val/ca\xe9/1.png"))
    refuse(data, "val", r"The name of .*/val/ca\\xe9 is not UTF-8")


def test_a_place_for_data_that_is_not_utf8(data, tmp_path):
    place = str(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"The name of .*/caf\\xe9 is not UTF-8"):
        open_split(dataclasses.replace(data, data_dir=place), "val")
    photos = pets(data).rename(place)
    assert len(open_split(dataclasses.replace(data, path=str(photos)), "val").source) == 3


@pytest.mark.parametrize("name", ["ant\r", "ant ", "a\nnt"])
def test_class_names_that_would_not_be_read_again(data, name):
    add(data, f"val/{name}/1.png")
    refuse(data, "val", "whose name begins or ends with a space or has a control character")


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX"])
def test_hidden_folders_are_no_classes(data, name):
    add(data, f"val/{name}/1.png", "val/.DS_Store")
    split = open_split(data, "val")
    assert split.class_names == ("cat", "dog") and len(split.source) == 3
    assert split.remarks[0].endswith("left out 1 hidden file, 1 hidden folder.")
