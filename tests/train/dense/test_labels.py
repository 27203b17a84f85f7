"""Label images: the numbers that the file stores, of every bit depth; what is no such file."""

import chex
import numpy as np
import pytest
from hypothesis import assume, given, settings
from PIL import Image

from tests import image_files
from tests.image_files import png, saved
from tests.train.dense.conftest import sentence
from train.data.dense.files import label_size, read_labels
from train.data.fetching.fetch import DataError

VALUES = np.random.default_rng(0).integers(0, 2, (5, 9))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("labels") / "labels.png"


@settings(max_examples=200, deadline=None)
@given(image_files.png_files())
def test_stored_values_of_every_depth_and_palette(path, drawn):
    file, stored = drawn
    assume(stored is not None)
    path.write_bytes(file.encoded)
    found = read_labels(path)
    chex.assert_type(found, np.int32)
    chex.assert_trees_all_equal(found, stored.astype(np.int32))
    assert label_size(path) == stored.shape


@pytest.mark.parametrize(("depth", "values"), [(1, 2), (2, 4), (4, 16), (8, 256), (16, 65536)])
def test_every_value(path, depth, values):
    stored = np.arange(values).reshape(-1, 1, 1)
    path.write_bytes(png(stored, depth, 0))
    assert read_labels(path)[:, 0].tolist() == list(range(values))


def refused(path, encoded):
    path.write_bytes(encoded)
    with pytest.raises(DataError) as error:
        read_labels(path)
    return sentence(error)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "GIF"])
def test_other_formats(path, kind):
    said = refused(path, saved(Image.fromarray(VALUES.astype(np.uint8)), kind))
    assert f"labels.png is a file of {kind}; save labels as PNG, which keeps every" in said
    with pytest.raises(DataError, match=f"is a file of {kind}"):
        label_size(path)


def test_turned_labels(path):
    image = Image.fromarray(VALUES.astype(np.uint8))
    assert "has the EXIF orientation 3; labels are" in refused(path, saved(image, "PNG", 3))
    path.write_bytes(saved(image, "PNG", 1))
    chex.assert_trees_all_equal(read_labels(path), VALUES.astype(np.int32))


def test_channels_and_damage(path):
    two = Image.fromarray(np.zeros((5, 9, 2), np.uint8))
    assert "has 2 channels; it must have one" in refused(path, saved(two, "PNG"))
    whole = saved(Image.fromarray(VALUES.astype(np.uint8)), "PNG")
    assert "cannot be read: " in refused(path, whole[:50])
    assert "cannot be read: it begins like no image" in refused(path, b"no")
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_labels(path)
