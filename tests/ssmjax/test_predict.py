"""The predict command: what it reads, prints and draws, and one line for every bad input."""

import os

import numpy as np
import pytest
from PIL import Image

import ssmjax
from ssmjax import command_line
from ssmjax.predict import main, read_image
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, save_weights

NAME = "vim_tiny_patch16_224"
CLASSES = ("ant", "bee[red]", "cat")
PRUNED = ["--after-blocks", "1", "--keep-ratio", "0.5"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def model():
    sizes = {"depth": 2, "embed_dim": 16, "d_state": 2, "patch_size": 4, "img_size": 16}
    model = ssmjax.create_model(NAME, **sizes, num_classes=3)
    # Fresh heads are almost indifferent; a strong one makes mistakes in the input visible.
    model.head.kernel[...] = 50 * model.head.kernel[...]
    return model


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    config = config_overrides(NAME, model.config)
    save_weights(path, model, Metadata(NAME, config, CLASSES, MEAN, STD))
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(capsys, *arguments):
    """(exit status, stdout, stderr) of the command."""
    status = 0
    try:
        command_line.run(lambda: main([str(argument) for argument in arguments]))
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def printed(out):
    """(class, probability in %) of each line of the table that has one."""
    lines = [line.split() for line in out.splitlines() if line.rstrip().endswith("%")]
    return [(words[-2], float(words[-1].rstrip("%"))) for words in lines]


def expected(model, path):
    """What the command should print, computed from the pixels in float64."""
    with Image.open(path) as image:
        pixels = np.asarray(image) / 255
    logits = np.asarray(model(((pixels - MEAN) / STD).astype(np.float32)[None]))[0]
    p = np.exp(logits - logits.max())
    p = 100 * p / p.sum()
    return [(CLASSES[i], p[i]) for i in np.argsort(-p)]


def test_prints_the_classes_in_order(capsys, monkeypatch, model, weights, photo):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, err = run(capsys, photo, "--weights", weights)
    assert (status, err) == (0, "")
    want = expected(model, photo)
    assert [name for name, _ in printed(out)] == [name for name, _ in want]
    np.testing.assert_allclose([p for _, p in printed(out)], [p for _, p in want], atol=0.06)
    assert str(photo) in out


def test_many_photos_and_a_picture(capsys, monkeypatch, weights, photo, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    other, picture = tmp_path / "other.jpg", tmp_path / "kept.png"
    Image.new("RGB", (50, 30), "red").save(other)
    arguments = [photo, other, "--weights", weights, "--top", 1, "--picture", picture]
    status, out, err = run(capsys, *arguments, *PRUNED)
    assert (status, err) == (0, "")
    assert len(printed(out)) == 2
    with Image.open(picture) as image:
        assert image.format == "PNG"
        red = (np.asarray(image) == (254, 0, 0)).all(axis=2)
    # The photo whole, then 8 of 16 patches of it: 24 patches of 40 x 40 pixels.
    assert red.sum() == 24 * 40 * 40
    assert sorted(os.listdir(tmp_path)) == ["kept.png", "other.jpg", "photo.png"]


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
    assert read.shape == (4, 4, 3) and read.dtype == np.uint8
    np.testing.assert_allclose(read, np.broadcast_to(pixel, read.shape), atol=2)


def bad_image(folder, kind):
    path = folder / f"{kind}.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "empty":
        path.touch()
    elif kind == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "floats":
        Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF")
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "cut", "floats"])
def test_bad_images(capsys, weights, photo, tmp_path, kind):
    bad = bad_image(tmp_path, kind)
    status, out, err = run(capsys, photo, bad, "--weights", weights)
    reason = "There is no image file" if kind in ("missing", "folder") else "cannot be read"
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert str(bad) in err and reason in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "/nowhere/w.safetensors"], "There is no weight file /nowhere/w.safetensors"),
        (["--model", "vim_huge"], "vim_huge"),
        (["--top", "0"], "--top is 0; it must be at least 1"),
        (["--keep-ratio", "0.5"], "--after-blocks and --keep-ratio go together"),
        (["--after-blocks", "1"], "--after-blocks and --keep-ratio go together"),
        (["--after-blocks", "1", "--keep-ratio", "1.5"], "must be above 0 and at most 1"),
        (["--after-blocks", "9", "--keep-ratio", "0.5"], "the model has 2 blocks"),
        (["--picture", "out.png"], "this model is dense; say where to prune"),
        (["--picture", "out.jpg", *PRUNED], "its name must end in .png"),
        (["--picture", "/nowhere/out.png", *PRUNED], "folder of --picture /nowhere/out.png"),
    ],
)
def test_bad_options(capsys, weights, photo, arguments, message):
    status, out, err = run(capsys, photo, "--weights", weights, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_no_image(capsys, weights):
    status, _, err = run(capsys, "--weights", weights)
    assert (status, err) == (2, "error: No image was given; name one or more image files.\n")


def test_cut_weights(capsys, weights, photo, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-100])
    status, out, err = run(capsys, photo, "--weights", cut)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and str(cut) in err


def test_a_failed_write_leaves_nothing(capsys, monkeypatch, weights, photo, tmp_path):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    picture = tmp_path / "kept.png"
    arguments = [photo, photo, "--weights", weights, "--picture", picture]
    status, _, err = run(capsys, *arguments, *PRUNED)
    assert status == 2
    assert err == f"error: The picture {picture} cannot be written: No space left on device.\n"
    assert os.listdir(tmp_path) == ["photo.png"]
