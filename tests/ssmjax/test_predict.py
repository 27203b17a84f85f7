"""The predict command: what it reads, prints and draws, and one line for every bad input."""

import functools
import os

import chex
import numpy as np
import pytest
from PIL import Image

import ssmjax
from ssmjax.predict.__main__ import main
from ssmjax.preprocess import Preprocessing
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
    save_weights(path, model, Metadata(NAME, config, CLASSES, Preprocessing(MEAN, STD)))
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def predict(command):
    return functools.partial(command, main)


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


def test_names_of_classes_stay_on_their_line(predict, monkeypatch, model, tmp_path, photo):
    monkeypatch.setenv("COLUMNS", "200")
    names = ("a\nb", "\x1b[31mred", "[/c]")
    metadata = Metadata(NAME, config_overrides(NAME, model.config), names, Preprocessing(MEAN, STD))
    save_weights(tmp_path / "w.safetensors", model, metadata)
    status, out, _ = predict(photo, "--weights", tmp_path / "w.safetensors")
    assert status == 0 and "\x1b" not in out
    assert {name for name, _ in printed(out)} == {r"a\nb", r"\x1b[31mred", "[/c]"}


def test_prints_the_classes_in_order(predict, monkeypatch, model, weights, photo):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, err = predict(photo, "--weights", weights)
    assert (status, err) == (0, "")
    want = expected(model, photo)
    assert [name for name, _ in printed(out)] == [name for name, _ in want]
    chex.assert_trees_all_close(
        np.array([p for _, p in printed(out)]), np.array([p for _, p in want]), rtol=1e-7, atol=0.06
    )
    assert str(photo) in out


def test_many_photos_and_a_picture(predict, monkeypatch, weights, photo, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    other, picture = tmp_path / "other.jpg", tmp_path / "kept.png"
    Image.new("RGB", (50, 30), "red").save(other)
    arguments = [photo, other, "--weights", weights, "--top", 1, "--picture", picture]
    status, out, err = predict(*arguments, *PRUNED)
    assert (status, err) == (0, "")
    assert len(printed(out)) == 2
    with Image.open(picture) as image:
        assert image.format == "PNG"
        red = (np.asarray(image) == (254, 0, 0)).all(axis=2)
    # The photo whole, then 8 of 16 patches of it: 24 patches of 40 x 40 pixels.
    assert red.sum() == 24 * 40 * 40
    assert sorted(os.listdir(tmp_path)) == ["kept.png", "other.jpg", "photo.png"]


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
def test_bad_images(predict, weights, photo, tmp_path, kind):
    bad = bad_image(tmp_path, kind)
    status, out, err = predict(photo, bad, "--weights", weights)
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
def test_bad_options(predict, weights, photo, arguments, message):
    status, out, err = predict(photo, "--weights", weights, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_no_image(predict, weights):
    status, _, err = predict("--weights", weights)
    assert (status, err) == (2, "error: No image was given; name one or more image files.\n")


def test_cut_weights(predict, weights, photo, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-100])
    status, out, err = predict(photo, "--weights", cut)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and str(cut) in err


def test_a_failed_write_leaves_nothing(predict, monkeypatch, weights, photo, tmp_path):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    picture = tmp_path / "kept.png"
    arguments = [photo, photo, "--weights", weights, "--picture", picture]
    status, _, err = predict(*arguments, *PRUNED)
    assert status == 2
    assert err == f"error: The picture {picture} cannot be written: No space left on device.\n"
    assert os.listdir(tmp_path) == ["photo.png"]
