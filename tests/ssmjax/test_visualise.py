"""The visualise command: its table and its pictures, pixel by pixel, and one line when it fails."""

import functools
import os

import chex
import numpy as np
import pytest
from PIL import Image

import ssmjax
from ssmjax import visualise
from ssmjax.analysis.attention_maps import attention_maps, cosine_similarity
from ssmjax.analysis.heatmaps import COLOURS, OPACITY, Column, attention_picture
from ssmjax.models.vim import VimConfig
from ssmjax.preprocess import Preprocessing
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, save_weights

PRUNED = ["--after-blocks", "1", "--keep-ratio", "0.5"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def model(small_models):
    """4 x 4 patches of 4 pixels; the class token is position 8 of 17."""
    return ssmjax.create_model("vim", num_classes=3)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    config = config_overrides("vim", model.config)
    save_weights(path, model, Metadata("vim", config, ("a", "b", "c"), Preprocessing(MEAN, STD)))
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a|photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(command):
    return functools.partial(command, visualise.main)


def table(out):
    """{first cell: the numbers after it} of the rows below the heading."""
    rows = [line.strip("| ").split(" | ") for line in out.splitlines()[2:]]
    return {name: [float(value) for value in values] for name, *values in rows}


def colour_blind(tile):
    """[4,4] bool: the cells of a 160-pixel tile whose pixels are all grey."""
    spread = np.ptp(np.asarray(tile).astype(int), axis=2)
    return spread.reshape(4, 40, 4, 40).max(axis=(1, 3)) == 0


def test_tokens(run, weights, tmp_path):
    red, out = tmp_path / "red.png", tmp_path / "kept.png"
    Image.new("RGB", (50, 30), "red").save(red)
    arguments = [red, "--weights", weights, "--kind", "tokens", "--out", out]
    assert run(*arguments, *PRUNED) == (0, "", "")
    with Image.open(out) as image:
        pixels = np.asarray(image)
    # The photo whole, then 8 of 16 patches of it: 24 patches of 40 x 40 pixels.
    assert (pixels == (255, 0, 0)).all(axis=2).sum() == 24 * 40 * 40
    assert sorted(os.listdir(tmp_path)) == ["kept.png", "red.png"]


@pytest.mark.slow
def test_attention(run, model, weights, photo, tmp_path):
    arguments = [photo, "--weights", weights, "--kind", "attention", "--out", tmp_path / "o.png"]
    status, out, err = run(*arguments, *PRUNED)
    assert (status, err) == (0, "")
    with Image.open(photo) as image:
        x = ((np.asarray(image) / 255 - MEAN) / STD).astype(np.float32)[None]
    dense, _ = attention_maps(model, x)
    kept, want = np.zeros((1, 17), bool), []
    for alignment in ("previous", "none"):
        pruned = model.with_prune(ssmjax.PruneConfig((1,), 0.5, alignment=alignment))
        maps, positions = attention_maps(pruned, x)
        kept[0, positions[0]] = True
        cells = np.delete(kept, 8, axis=1).reshape(1, 4, 4)
        want.append(cosine_similarity(np.asarray(dense), np.asarray(maps), cells)[0])
    got = table(out)
    assert list(got) == [r"a\|photo.png", "mean of 1"]
    for values in got.values():
        chex.assert_trees_all_close(values, want, rtol=1e-7, atol=6e-4)
    with Image.open(tmp_path / "o.png") as picture:
        tiles = [picture.crop((left, 44, left + 160, 204)) for left in (20, 188, 356, 524)]
    assert not colour_blind(tiles[0]).any() and not colour_blind(tiles[1]).any()
    for tile in tiles[2:]:
        chex.assert_trees_all_equal(colour_blind(tile), ~cells[0])


@pytest.fixture
def faked(monkeypatch):
    """Maps without a model's work; the list tells of which models and with what options."""
    asked = []

    def maps(model, images, variant, *, layer, classes):
        prune = model.config.prune
        asked.append((prune and prune.alignment, variant, layer, classes.shape))
        kept = 17 if prune is None else 9
        maps = np.ones((len(images), 4, 4)) + (asked[-1][0] == "none") * np.eye(4)
        return maps, np.tile(np.arange(kept), (len(images), 1))

    monkeypatch.setattr(visualise, "attention_maps", maps)
    return asked


@pytest.mark.parametrize(
    ("stored", "aligned"), [("zero_token", "zero_token"), ("none", "previous")]
)
def test_the_models_compared(run, faked, model, tmp_path, photo, stored, aligned):
    prune = {"after_blocks": [1], "keep_ratio": 0.5, "alignment": stored}
    config = config_overrides("vim", model.config) | {"prune": prune}
    weights = tmp_path / "pruned.safetensors"
    save_weights(weights, model, Metadata("vim", config, ("a", "b", "c"), Preprocessing(MEAN, STD)))
    arguments = ["--kind", "attention", "--variant", "raw", "--layer", 2]
    status, out, err = run(*[photo] * 9, "--weights", weights, *arguments)
    assert (status, err) == (0, "")
    first = [(alignment, "raw", 2, (8,)) for alignment in (None, aligned, "none")]
    assert faked == first + [(*of_model, (1,)) for *of_model, _ in first]
    # Kept are the first 8 cells, on two of which the last model's map is 2 and not 1.
    means = np.array(table(out)["mean of 9"])
    chex.assert_trees_all_close(means, np.array([1, 10 / (8 * 14) ** 0.5]), rtol=1e-7, atol=6e-4)
    assert sorted(os.listdir(tmp_path)) == ["a|photo.png", "pruned.safetensors"]


def test_fresh_parameters_see_photos_as_imagenet_models_do(run, faked, small_models, photo):
    status, out, err = run(photo, "--model", "vim", "--kind", "attention", *PRUNED)
    assert (status, err) == (0, "") and "mean of 1" in out


def test_colours_of_a_heat_map():
    config = VimConfig(depth=2, patch_size=8, img_size=16)
    photos = np.full((1, 16, 16, 3), (200, 100, 50), np.uint8)
    maps = np.array([[[2.0, 0], [1, 8]]])
    columns = [
        Column("all", maps, np.ones((1, 2, 2), bool)),
        Column("three", maps, np.array([[[True, True], [True, False]]])),
        Column("none", 0 * maps, np.ones((1, 2, 2), bool)),
    ]
    pixels = np.asarray(attention_picture(photos, columns, config)).astype(float)
    corners = pixels[[44 + 40, 44 + 120]][:, 20 + np.arange(4)[:, None] * 168 + [40, 120]]
    photo, *tiles = np.moveaxis(corners, 1, 0)  # Each [2,2,3], cell by cell.
    assert (photo == (200, 100, 50)).all()
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50

    def heat(place):
        """The colour at `place` of the steps of COLOURS, over grey."""
        low, high = np.array(COLOURS, float)[[int(place), min(int(place) + 1, 4)]]
        return (1 - OPACITY) * grey + OPACITY * (low + (place - int(place)) * (high - low))

    # As shares of the most that is shown, 8: 1/4, 0, 1/8, 1; of 2: 1, 0, 1/2.
    chex.assert_trees_all_close(
        tiles[0].reshape(4, 3), np.array([*map(heat, (1, 0, 0.5, 4))]), rtol=1e-7, atol=2
    )
    chex.assert_trees_all_close(
        tiles[1].reshape(4, 3)[:3], np.array([*map(heat, (4, 0, 2))]), rtol=1e-7, atol=2
    )
    assert np.ptp(tiles[1][1, 1]) == 0 and tiles[1][1, 1, 0] > 150
    chex.assert_trees_all_close(tiles[2].reshape(4, 3), np.array([heat(0)] * 4), rtol=1e-7, atol=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((1, 8, 8, 3), np.uint8)}, "must be uint8"),
        ({"columns": [Column("", np.ones((1, 3, 2)), np.ones((1, 2, 2), bool))]}, r"\(1, 2, 2\)"),
        ({"captions": ["one", "two"]}, "There are 1 photos"),
    ],
)
def test_heat_map_errors(change, message):
    column = Column("", np.ones((1, 2, 2)), np.ones((1, 2, 2), bool))
    good = {"images": np.zeros((1, 16, 16, 3), np.uint8), "columns": [column]}
    config = VimConfig(depth=2, patch_size=8, img_size=16)
    with pytest.raises(ValueError, match=message):
        attention_picture(**{**good, **change}, config=config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "maps"], "--kind"),
        (["--kind", "attention"], "This model is dense; say where to prune"),
        (["--kind", "attention", "--prune", "paper"], "The paper has no schedule for vim"),
        (["--kind", "attention", "--keep-ratio", "0.5"], "--after-blocks and --keep-ratio go"),
        (
            ["--kind", "attention", "--layer", "3", *PRUNED],
            "layer is 3; the model has the blocks 1",
        ),
        (
            ["--kind", "attention", "--variant", "rollout", "--layer", "1", *PRUNED],
            "layer is 1, but rollout looks at all blocks",
        ),
        (["--kind", "tokens", *PRUNED], "name the PNG to write with --out"),
        (
            ["--kind", "tokens", "--out", "kept.jpg", *PRUNED],
            "--out is kept.jpg; its name must end",
        ),
        (["--kind", "attention", "--out", "/nowhere/o.png", *PRUNED], "folder of --out /nowhere"),
    ],
)
def test_bad_options(run, weights, photo, arguments, message):
    status, out, err = run(photo, "--weights", weights, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_no_model_and_no_photo(run, weights, photo):
    status, _, err = run(photo, "--kind", "attention", *PRUNED)
    assert (status, err) == (
        2,
        "error: No model was given; name a weight file with --weights.\n",
    )
    status, _, err = run("--weights", weights, "--kind", "attention", *PRUNED)
    assert (status, err) == (2, "error: No image was given; name one or more image files.\n")
