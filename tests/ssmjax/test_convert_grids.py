"""Grids of position embeddings through files: noted, known from published models, or asked for."""

import functools

import chex
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

import ssmjax
from ssmjax import imagenet
from ssmjax.convert.load import official_shapes
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, save_weights
from tests.oracles.downstream import recipe_downstream

torch = pytest.importorskip("torch")

SLOW = pytest.mark.slow


def ours(path, name, size):
    """A weight file of images of a size, and its arrays."""
    create = functools.partial(ssmjax.create_model, name, num_classes=3, img_size=size)
    model = nnx.eval_shape(create)
    state = recipe_downstream.state_dict(1, list(official_shapes(model).items()))
    grid = getattr(model.config, "grid", None) or model.config.backbone.trunk.grid
    ssmjax.load_torch_state_dict(model, state, grid=grid)
    overrides = config_overrides(name, model.config)
    save_weights(path, model, Metadata(name, overrides, (), imagenet.preprocessing(name)))
    return safetensors.numpy.load_file(path)


def without_note(path):
    """The same official file as others write it."""
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    else:
        content = torch.load(path, weights_only=True)
        del content["ssmjax_grid"]
        torch.save(content, path)


@pytest.mark.parametrize(
    ("name", "size", "suffix"),
    [
        ("vim", (8, 32), ".pth"),
        pytest.param("vim", (32, 8), ".safetensors", marks=SLOW),
        pytest.param("vim", (24, 24), ".pth", marks=SLOW),
        ("vim_fine", (8, 32), ".safetensors"),
        pytest.param("plain", (8, 32), ".pth", marks=SLOW),
        ("plain", (12, 20), ".safetensors"),
        ("deit", (32, 8), ".pth"),
        pytest.param("retina", (8, 32), ".safetensors", marks=SLOW),
        ("uper", (32, 8), ".pth"),
    ],
)
def test_there_and_back_bit_for_bit(convert, small_models, tmp_path, name, size, suffix):
    """Of 8 x 32 pixels 16 patches, as many as of the published 16 x 16; all of other counts."""
    first, official, last = (tmp_path / f for f in ("a.safetensors", f"t{suffix}", "b.safetensors"))
    want = ours(first, name, size)
    assert convert(first, "--to-torch", "--out", official)[::2] == (0, "")
    options = ("--model", name, "--img-size", *size, "--out", last)
    assert convert(official, *options)[::2] == (0, "")
    chex.assert_trees_all_equal(safetensors.numpy.load_file(last), want)
    with safetensors.safe_open(first, "np") as a, safetensors.safe_open(last, "np") as b:
        assert a.metadata() == b.metadata()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_official_files_are_as_published_but_for_the_note(convert, small_models, tmp_path, suffix):
    """The note stands beside the weights, where the official code does not look."""
    for name, key in (("vim", "model"), ("plain", "state_dict"), ("uper", "state_dict")):
        for size, grid in (((16, 16), None), ((8, 32), [2, 8])):
            first, official = tmp_path / "a.safetensors", tmp_path / f"t{suffix}"
            ours(first, name, size)
            assert convert(first, "--to-torch", "--out", official)[::2] == (0, "")
            if suffix == ".pth":
                content = torch.load(official, weights_only=True)
                outer = {"meta"} if key == "state_dict" else set()
                assert set(content) == {key} | outer | ({"ssmjax_grid"} if grid else set())
                assert content.get("ssmjax_grid") == grid and content.get("meta", {}) == {}
                names = list(content[key])
            else:
                with safetensors.safe_open(official, "np") as file:
                    note = {"ssmjax_grid": str(grid)} if grid else {}
                    assert file.metadata() == {"format": "pt", **note}
                    names = list(file.keys())
            create = functools.partial(ssmjax.create_model, name, num_classes=3, img_size=size)
            assert set(names) == set(official_shapes(nnx.eval_shape(create)))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("vim", ".pth"),
        pytest.param("plain", ".safetensors", marks=SLOW),
        ("deit", ".safetensors"),
        pytest.param("uper", ".pth", marks=SLOW),
    ],
)
def test_foreign_files_are_asked_for(convert, refused, small_models, tmp_path, name, suffix):
    first, official, last = (tmp_path / f for f in ("a.safetensors", f"t{suffix}", "b.safetensors"))
    want = ours(first, name, (8, 32))
    assert convert(first, "--to-torch", "--out", official)[::2] == (0, "")
    without_note(official)
    options = (official, "--model", name, "--out", last)
    error = refused(*options, "--img-size", "8", "32")
    assert "its 16 patches may lie as 2 x 8 or as 4 x 4" in error and "--grid H W" in error
    assert len(error) < 400 + len(str(official)) and not last.exists()
    assert convert(*options, "--img-size", "8", "32", "--grid", "2", "8")[::2] == (0, "")
    chex.assert_trees_all_equal(safetensors.numpy.load_file(last), want)
    # 2 x 8 to 3 x 5; a class token stays what it was, in the middle of both or first.
    assert convert(*options, "--img-size", "12", "20", "--grid", "2", "8")[::2] == (0, "")
    got = safetensors.numpy.load_file(last)
    places = {"vim": (8, 7), "deit": (0, 0)}.get(name, (None, None))
    key = next(key for key in want if key.endswith("pos_embed"))
    embedding = resize_pos_embed(want.pop(key), (2, 8), (3, 5), class_token=places)
    chex.assert_trees_all_equal(got.pop(key), embedding)
    chex.assert_trees_all_equal(got, want)


@pytest.mark.parametrize("name", ["vim", pytest.param("plain", marks=SLOW)])
def test_a_number_of_patches_that_nobody_publishes(convert, refused, small_models, tmp_path, name):
    """36 could be 6 x 6, and 3 x 12."""
    first, official, last = (tmp_path / f for f in ("a.safetensors", "t.pth", "b.safetensors"))
    want = ours(first, name, (12, 48))
    assert convert(first, "--to-torch", "--out", official)[::2] == (0, "")
    without_note(official)
    options = (official, "--model", name, "--out", last, "--img-size")
    error = refused(*options, "16")
    assert "its 36 patches lie in a grid that the file does not tell" in error
    assert "--grid H W" in error and not last.exists()
    assert convert(*options, "12", "48", "--grid", "3", "12")[::2] == (0, "")
    chex.assert_trees_all_equal(safetensors.numpy.load_file(last), want)


def test_what_is_noted_counts(convert, refused, small_models, tmp_path):
    first, official, last = (tmp_path / f for f in ("a.safetensors", "t.pth", "b.safetensors"))
    ours(first, "vim", (8, 32))
    assert convert(first, "--to-torch", "--out", official)[::2] == (0, "")
    options = (official, "--model", "vim", "--out", last)
    # As many patches as the model has, and not its grid.
    error = refused(*options)
    assert "pos_embed is of 2 x 8 patches, the model of 4 x 4; give the size of its" in error
    error = refused(*options, "--img-size", "8", "32", "--grid", "4")
    assert "--grid is 4, and" in error and "2 x 8 patches; leave --grid out" in error
    assert convert(*options, "--img-size", "16")[::2] == (0, "")
    got, given = safetensors.numpy.load_file(last), safetensors.numpy.load_file(first)
    want = resize_pos_embed(given["pos_embed"], (2, 8), (4, 4), class_token=(8, 8))
    chex.assert_trees_all_equal(got["pos_embed"], want)


@pytest.mark.parametrize(
    "note",
    ["2 x 8", [2], *(pytest.param(note, marks=SLOW) for note in ([2.0, 8], [-2, -8], {"a": 1}))],
)
def test_notes_that_are_none(refused, states, tmp_path, note):
    path = tmp_path / "t.pth"
    state = dict(states["vim"]) | {"pos_embed": torch.zeros(1, 37, 16)}
    torch.save({"model": state, "ssmjax_grid": note}, path)
    error = refused(path, "--model", "vim", "--img-size", "16", "--out", tmp_path / "b.safetensors")
    assert "its 36 patches lie in a grid that the file does not tell" in error


@pytest.mark.parametrize("grid", [("0",), ("4", "0"), ("-4", "4"), ("2", "2", "4")])
def test_grids_that_are_none(refused, states, tmp_path, grid):
    torch.save(states["vim"], tmp_path / "t.pth")
    options = ("--model", "vim", "--out", tmp_path / "b.safetensors", "--img-size", "8")
    error = refused(tmp_path / "t.pth", *options, "--grid", *grid)
    assert "--grid" in error and not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("name", ["vim", "plain", "deit", "uper"])
@pytest.mark.parametrize(
    "size", [(16, 16), pytest.param((32, 8), marks=SLOW), pytest.param((12, 20), marks=SLOW)]
)
def test_weight_files_tell_their_grid(small_models, tmp_path, name, size):
    """`create_model` resizes from 2 x 8, which the file's config says, also to as many patches."""
    path = tmp_path / "a.safetensors"
    want = ours(path, name, (8, 32))
    model = ssmjax.create_model(weights=path, img_size=size)
    places = {"vim": (8, size[0] * size[1] // 32), "deit": (0, 0)}.get(name, (None, None))
    grid = size[0] // 4, size[1] // 4
    key = next(key for key in want if key.endswith("pos_embed"))
    want[key] = resize_pos_embed(want[key], (2, 8), grid, class_token=places)
    chex.assert_trees_all_equal({n: a[...] for n, a in flat_params(model).items()}, want)


def test_a_finer_stride_is_another_grid(small_models, tmp_path):
    path = tmp_path / "a.safetensors"
    want = ours(path, "vim_fine", (8, 16))
    model = ssmjax.create_model(weights=path, stride=4)
    embedding = resize_pos_embed(want["pos_embed"], (3, 7), (2, 4), class_token=(10, 4))
    chex.assert_trees_all_equal(model.pos_embed[...], embedding)
