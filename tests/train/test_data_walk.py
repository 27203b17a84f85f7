"""The walk of a folder: what counts, what is left out, and links."""

import os
import unicodedata

import pytest

from train.data.fetching.fetch import DataError
from train.data.sources.walk import files_of, present

SUFFIXES = (".jpg", ".png", ".tif")


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")


def found(folder):
    listing = files_of(folder, SUFFIXES)
    return [file.name for file in listing.files], listing.remark()


def test_endings_count_in_any_case_and_others_are_told(tmp_path):
    write(tmp_path, "b.JPG", "a/deep/c.tif", "a.png", "1.heic", "2.HEIC", "README", "x.jpg.txt")
    names, remark = found(tmp_path)
    assert names == ["a/deep/c.tif", "a.png", "b.JPG"]  # By parts: "a" is before "a.png".
    assert remark == "2 .heic, 1 .txt, 1 file without an ending"


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".AppleDouble", "#recycle", "$RECYCLE.BIN"],
)
def test_hidden_folders_at_every_depth(tmp_path, name):
    write(tmp_path, "a.png", f"{name}/a.png", f"deep/er/{name}/b/c.png", "deep/er/d.png")
    assert found(tmp_path) == (["a.png", "deep/er/d.png"], "2 hidden folders")


def test_hidden_and_empty_files(tmp_path):
    write(tmp_path, "a.png", "._a.png", ".b.png", "Thumbs.db", "thumbs.DB", "desktop.ini")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    assert found(tmp_path) == (["a.png"], "5 hidden files, 1 empty file")


def test_loops_and_repeated_folders_give_each_file_once(tmp_path):
    write(tmp_path, "cat/1.png", "cat/z/2.png", "dog/3.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "a").symlink_to("z")  # Sorted before the folder itself, which counts.
    (tmp_path / "cat" / "dogs").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)
    names, remark = found(tmp_path)
    assert names == ["cat/1.png", "cat/z/2.png", "dog/3.png"]
    assert remark == "4 repeated folders"


def test_links_to_the_folders_above_are_loops(tmp_path):
    write(tmp_path, "train/cat/1.png", "val/cat/2.png")
    (tmp_path / "train" / "cat" / "up").symlink_to("../..")
    (tmp_path / "train" / "cat" / "root").symlink_to("/")
    assert found(tmp_path / "train") == (["cat/1.png"], "2 repeated folders")


def test_links_to_folders_and_files_elsewhere_are_followed(tmp_path):
    write(tmp_path, "photos/a/1.png", "photos/2.png", "root/3.png")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "photos")
    (tmp_path / "root" / "4.png").symlink_to(tmp_path / "photos" / "2.png")
    names, remark = found(tmp_path / "root")
    assert names == ["3.png", "4.png", "linked/2.png", "linked/a/1.png"] and remark == ""


def test_links_that_lead_nowhere(tmp_path):
    write(tmp_path, "cat/1.png", "LICENSE", "README")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "dog").symlink_to("nowhere")  # Like a class whose folder is on another disk.
    (tmp_path / "cat" / "more.photos").symlink_to("nowhere")
    (tmp_path / ".hidden").symlink_to("nowhere")
    remark = "3 broken links, 2 files without an ending, 1 hidden file"
    assert found(tmp_path) == (["cat/1.png"], remark)
    (tmp_path / "self.png").symlink_to("self.png")
    with pytest.raises(DataError, match=r"self.png cannot be read; repair or delete it."):
        found(tmp_path)


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert found(tmp_path) == ([], "1 empty file")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/1.png"])
def test_names_that_are_not_utf8_are_refused_readably(tmp_path, name):
    write(tmp_path, os.fsdecode(name))
    with pytest.raises(DataError, match=r"The name of .*caf\\xe9.* is not UTF-8; rename it"):
        found(tmp_path)


def test_many_kinds_are_summed_up(tmp_path):
    write(tmp_path, *(f"{n}.{n:03}" for n in range(20)))
    assert found(tmp_path)[1].endswith(", 12 of other kinds")


def test_left_out_below_a_folder(tmp_path):
    write(tmp_path, "cat/1.heic", "cats/1.heic", "cats/2.heic")
    assert files_of(tmp_path, SUFFIXES).remark("cat/") == "1 .heic"


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_files_are_present_however_accents_are_written(tmp_path, on_disk):
    name = unicodedata.normalize(on_disk, "é.png")
    write(tmp_path, name)
    paths = [tmp_path / unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    assert present(paths, "list") == [tmp_path / name] * 2
    with pytest.raises(DataError, match=r"list lacks 1 of its 2 files, such as .*b.png"):
        present([paths[0], tmp_path / "b.png"], "list")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_files_are_present_in_folders_however_accents_are_written(tmp_path, on_disk):
    name = unicodedata.normalize(on_disk, "é/ü/a.png")
    write(tmp_path, name, "plain/a.png")
    paths = [tmp_path / unicodedata.normalize(form, "é/ü/a.png") for form in ("NFC", "NFD")]
    paths.append(tmp_path / "plain" / "a.png")
    assert present(paths, "list") == [tmp_path / name] * 2 + [paths[2]]
    for lacking in ("é/none/a.png", "é/ü", "\ud800/a.png", "a\0/a.png"):
        with pytest.raises(DataError, match="list lacks 1 of its 2 files"):
            present([paths[0], tmp_path / lacking], "list")
