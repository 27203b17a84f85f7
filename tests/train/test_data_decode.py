"""Training, evaluation and commands see the same pixels, whatever the file."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssmjax import photos
from tests import image_files
from tests.image_files import picture, saved
from train.data.decode import decode
from train.data.dense.files import read_image
from train.data.fetching.fetch import DataError
from train.data.pipeline import eval_batches
from train.data.sources.source import Split

SIZE = (8, 8)


class Files(list):
    """Encoded photos as a source of examples."""

    def __getitems__(self, keys):
        return [{"image": self[key], "label": 0} for key in keys]


@st.composite
def any_files(draw) -> bytes:
    """Files of every format, mode, bit depth and orientation; some end too early."""
    encoded = draw(
        st.one_of(
            image_files.lossless_files().map(lambda file: file.encoded),
            image_files.png_files().map(lambda drawn: drawn[0].encoded),
            image_files.jpeg_files(),
            image_files.other_files(),
        )
    )
    return encoded[: draw(st.none() | st.integers(0, len(encoded)))]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("photos") / "photo.png"  # Whose content may be anything.


@settings(max_examples=300, deadline=None)
@given(any_files())
def test_all_readers_agree(path, encoded):
    path.write_bytes(encoded)
    seen = decode(encoded)
    (batch,) = eval_batches(Split(Files([encoded]), ("one",), "one"), batch_size=1, size=SIZE)
    if seen is None:
        assert not batch["mask"][0]
        with pytest.raises(ValueError, match="cannot be read as an image"):
            photos.read_photo(path)
        with pytest.raises(DataError, match="is not a readable JPEG or PNG"):
            read_image(path)
        return
    assert seen.dtype == np.uint8 and seen.ndim == 3 and seen.shape[2] == 3
    chex.assert_trees_all_equal(photos.read_photo(path), seen)
    chex.assert_trees_all_equal(read_image(path), seen)
    assert batch["mask"][0]
    chex.assert_trees_all_equal(photos.read_image(path, SIZE), batch["image"][0])


def test_transparency_is_white_in_training_too():
    image = Image.new("RGBA", (6, 4), (200, 40, 40, 0))
    image.paste((200, 40, 40, 255), (2, 1, 4, 3))
    found = decode(saved(image, "PNG"))
    assert found is not None and (found[1:3, 2:4] == (200, 40, 40)).all()
    assert (found[0] == 255).all() and (found[:, 0] == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_part_of_a_file_is_unreadable(kind, share):
    image, _ = picture("RGB", 40, 60, np.random.default_rng(0))
    encoded = saved(image, kind)
    assert decode(encoded) is not None
    assert decode(encoded[: int(share * len(encoded))]) is None


def test_other_bytes_are_unreadable():
    assert decode(b"no photo") is None
