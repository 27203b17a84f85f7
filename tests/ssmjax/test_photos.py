"""Photos as models get them, whatever the file holds."""

import chex
import numpy as np
import pytest
from PIL import Image

from ssmjax.photos import fitting, in_batches, read_image
from ssmjax.preprocess import Preprocessing


def test_the_middle_is_taken(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[4:36, 24:56] = 255  # The middle 0.8 of the middle square.
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    inner, whole = (read_image(tmp_path / "wide.png", (8, 8), share) for share in (0.8, 1.0))
    assert inner.min() > 200 and whole[0].max() < 128 and whole[:, 0].max() < 128
    assert whole[2:6, 2:6].min() > 200


def test_upright_and_of_the_size(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = 255  # The right half, which the camera says is the bottom.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png", (8, 6))
    assert image.shape == (8, 6, 3)
    assert (image[:3] < 10).all() and (image[5:] > 245).all()


@pytest.mark.parametrize(
    ("size", "want"),
    [
        ((480, 640), (800, 1067)),
        ((1, 1), (800, 800)),
        ((1, 5000), (1, 1333)),  # Not 0.
        ((4000, 1), (1333, 1)),
        ((3000, 2000), (1200, 800)),
    ],
)
def test_fitting(size, want):
    height, width = size
    assert fitting(height, width, (1333, 800)) == fitting(height, width, (800, 1333)) == want


@pytest.mark.parametrize(
    ("image", "name", "pixel"),
    [
        (Image.new("L", (5, 5), 77), "grey.png", (77, 77, 77)),
        (Image.new("1", (5, 5), 1), "bits.png", (255, 255, 255)),
        (Image.fromarray(np.full((5, 5), 257 * 77, np.uint16)), "grey16.png", (77, 77, 77)),
        (Image.fromarray(np.full((5, 5), 257 * 77, np.int32)), "grey32.tiff", (77, 77, 77)),
        (Image.new("LA", (5, 5), (77, 0)), "clear_grey.png", (255, 255, 255)),
        (Image.new("RGBA", (5, 5), (200, 100, 0, 255)), "solid.png", (200, 100, 0)),
        (Image.new("RGBA", (5, 5), (200, 100, 0, 0)), "clear.png", (255, 255, 255)),
        (Image.new("RGBA", (5, 5), (200, 100, 0, 51)), "faint.webp", (244, 224, 204)),
        (Image.new("RGB", (5, 5), (200, 100, 0)).quantize(), "palette.gif", (200, 100, 0)),
        (Image.new("CMYK", (5, 5), (0, 255, 255, 0)), "print.tiff", (255, 0, 0)),
        (Image.new("RGB", (5, 5), (10, 200, 30)).convert("YCbCr"), "video.jpg", (10, 200, 30)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_image(tmp_path, image, name, pixel):
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    read = read_image(tmp_path / name, (4, 4))
    chex.assert_shape(read, (4, 4, 3))
    chex.assert_type(read, np.uint8)
    chex.assert_trees_all_close(read, np.broadcast_to(pixel, read.shape), rtol=1e-7, atol=2)


def test_batches_are_normalised_and_joined():
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 3), dtype=np.uint8)
    sizes = []

    def function(batch):
        sizes.append(len(batch))
        return batch, [batch.sum(axis=(1, 2, 3))]

    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    joined, [sums] = in_batches(function, images, preprocessing, 2)
    want = (images / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]
    chex.assert_trees_all_close(joined, want, rtol=1e-7, atol=1e-6)
    chex.assert_trees_all_close(sums, want.sum(axis=(1, 2, 3)), rtol=1e-7, atol=1e-5)
    chex.assert_type(joined, np.float32)
    assert sizes == [2, 2, 1]
