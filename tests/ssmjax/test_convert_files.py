"""The convert command: checkpoints as they are published, and the way back."""

import argparse
import os
import subprocess
import sys
from collections import OrderedDict

import chex
import numpy as np
import pytest
import safetensors.numpy

import ssmjax
from ssmjax import imagenet
from ssmjax.convert.load import load_torch_state_dict, to_torch_state_dict
from ssmjax.weights import read_metadata
from tests.golden import recipe

torch = pytest.importorskip("torch")


def assert_same(got, want):
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == want[name].dtype and torch.equal(got[name], want[name]), name


def is_parameter(name):
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def converted(convert, name, content, folder, *options, suffix=".pth", save=torch.save):
    """Official tensors of the model that the command makes of a file with that content."""
    path, out = folder / f"official{suffix}", folder / "ours.safetensors"
    save(content, path)
    status, _, err = convert(path, "--model", name, "--out", out, *options)
    assert (status, err) == (0, "")
    return {
        key: torch.from_numpy(a)
        for key, a in to_torch_state_dict(ssmjax.create_model(weights=out)).items()
    }


@pytest.mark.parametrize("name", ["vim", "plain", "deit"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_there_and_back(convert, states, tmp_path, name, suffix):
    official, ours = tmp_path / f"official{suffix}", tmp_path / "new" / "ours.safetensors"
    back = tmp_path / "newer" / f"back{suffix}"
    key = "state_dict" if name == "plain" else "model"
    wrapped = {"meta": {}} if name == "plain" else {}
    wrapped[key] = states[name]
    if suffix == ".safetensors":
        arrays = {key: tensor.numpy() for key, tensor in states[name].items()}
        safetensors.numpy.save_file(arrays, official)
    else:
        torch.save(wrapped, official)
    status, out, err = convert(official, "--model", name, "--out", ours)
    assert (status, err) == (0, "")
    parameters = sum(t.numel() for key, t in states[name].items() if is_parameter(key))
    size = f"{ours.stat().st_size / 1e6:.1f} MB"
    assert out == f"{ours}: {name}, {parameters:,} parameters, 3 classes, 16 x 16 pixels, {size}\n"
    status, out, err = convert(ours, "--to-torch", "--out", back)
    assert (status, err) == (0, "") and str(back) in out
    if suffix == ".safetensors":
        got = safetensors.numpy.load_file(back)
        assert_same({key: torch.from_numpy(got[key]) for key in states[name]}, states[name])
        assert len(got) == len(states[name])
    else:
        got = torch.load(back, weights_only=True)
        assert list(got) == list(wrapped) and got.get("meta", {}) == {}
        assert_same(got[key], states[name])
    assert os.listdir(ours.parent) == [ours.name] and os.listdir(back.parent) == [back.name]


def test_the_file_needs_nothing_else(convert, states, tmp_path):
    converted(convert, "plain", states["plain"], tmp_path)
    metadata = read_metadata(tmp_path / "ours.safetensors")
    assert metadata.model == "plain" and metadata.config == {"num_classes": 3}
    how = metadata.preprocessing
    assert how.mean == (0.485, 0.456, 0.406) and how.std == (0.229, 0.224, 0.225)
    model = ssmjax.create_model(weights=tmp_path / "ours.safetensors")
    expected = ssmjax.create_model("plain", num_classes=3)
    load_torch_state_dict(expected, {key: a.numpy() for key, a in states["plain"].items()})
    images = recipe.images(1, (2, 16, 16, 3))
    chex.assert_trees_all_equal(model(images), expected(images))


@pytest.mark.parametrize(
    ("name", "mean", "crop_pct"),
    [("deit_tiny_patch16_224", 0.485, 0.875), ("vit_large_patch16_384", 0.5, 1.0)],
)
def test_how_photos_are_given(name, mean, crop_pct):
    how = imagenet.preprocessing(name)
    assert (how.mean[0], how.crop_pct) == (mean, crop_pct)


def vim_file(state):
    """All that the official training script of Vim keeps."""
    return {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"base_values": [1e-3]},
        "epoch": 299,
        "model_ema": OrderedDict((key, tensor + 1) for key, tensor in state.items()),
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(lr=1e-3, model="vim", best=np.float64(76.1), device="cuda"),
    }


def plain_file(state):
    """All that mmcv keeps, with the buffers of its averaging hook."""
    notes = {"epoch": 300, "config": "text", "CLASSES": ("ant", "bee"), "time": np.float32(1.5)}
    buffers = {f"ema_{key.replace('.', '_')}": tensor + 1 for key, tensor in state.items()}
    return {"meta": notes, "state_dict": OrderedDict({**state, **buffers}), "optimizer": {}}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_published_files(convert, states, tmp_path, zipped):
    def save(content, path):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)

    for name, content in (("vim", vim_file), ("plain", plain_file)):
        got = converted(convert, name, content(states[name]), tmp_path, save=save)
        assert_same(got, states[name])


@pytest.mark.parametrize(("key", "prefix"), [("model_ema", ""), ("state_dict_ema", "module.")])
def test_averaged_weights(convert, states, tmp_path, key, prefix):
    """As Vim's script keeps them, and as timm does, of a model that was parallel."""
    content = vim_file(states["vim"])
    averaged = content.pop("model_ema")
    content[key] = {prefix + name: tensor for name, tensor in averaged.items()}
    got = converted(convert, "vim", content, tmp_path, "--ema")
    assert_same(got, {key: tensor + 1 for key, tensor in states["vim"].items()})


def test_weights_that_are_averaged_already(refused, states, tmp_path):
    """mmcv's hook swaps average and weights before a checkpoint is written."""
    path = tmp_path / "a.pth"
    torch.save(plain_file(states["plain"]), path)
    error = refused(path, "--model", "plain", "--out", tmp_path / "b.safetensors", "--ema")
    assert f"{path} holds averaged weights already" in error and "Leave --ema out." in error


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("vim", "_orig_mod."),
        ("vim", "module.model."),
        ("plain", "model."),
        ("plain", "backbone."),
        ("deit", "backbone."),
        ("uper", "module."),
    ],
)
def test_prefixes(convert, refused, states, tmp_path, name, prefix):
    """Of all names; the number of classes is read all the same, and a fault is told in short."""
    state = {prefix + key: tensor for key, tensor in states[name].items()}
    path, out = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save({"state_dict": state}, path)
    assert convert(path, "--model", name, "--out", out)[::2] == (0, "")
    got = to_torch_state_dict(ssmjax.create_model(weights=out))
    assert_same({key: torch.from_numpy(array) for key, array in got.items()}, states[name])
    first = next(iter(states[name]))
    del state[prefix + first]
    torch.save({"state_dict": state}, path)
    error = refused(path, "--model", name, "--out", out)
    assert error == (
        f"error: {path} does not fit {name}: 1 problem with the state_dict (without the prefix "
        f"{prefix} of the names): missing {first}.\n"
    )


def test_a_prefix_of_another_model(refused, states, tmp_path):
    path = tmp_path / "official.pth"
    torch.save({f"model.{key}": tensor for key, tensor in states["vim_wide"].items()}, path)
    error = refused(path, "--model", "plain", "--out", tmp_path / "ours.safetensors")
    assert "does not fit plain; it looks like vim_wide: " in error and len(error) < 900


def test_other_shapes_of_files(convert, states, tmp_path):
    state = states["plain"]
    parallel = {f"module.{key}": tensor for key, tensor in state.items()}
    assert_same(converted(convert, "plain", {"state_dict": parallel}, tmp_path), state)
    trained = {k: torch.nn.Parameter(t) if t.is_floating_point() else t for k, t in state.items()}
    assert_same(converted(convert, "plain", trained, tmp_path), state)
    half = {k: t.bfloat16() if t.is_floating_point() else t for k, t in state.items()}
    rounded = {k: t.float() if t.is_floating_point() else t for k, t in half.items()}
    assert_same(converted(convert, "plain", half, tmp_path), rounded)


@pytest.mark.parametrize("size", [["12"], ["12", "20"], ["8", "32"]])
def test_resized(convert, states, tmp_path, size):
    """Also 8 x 32, whose 16 patches are as many as those of the official 16 x 16."""
    grid = ("--grid", "4") if size == ["8", "32"] else ()
    got = converted(convert, "plain", states["plain"], tmp_path, "--img-size", *size, *grid)
    height, width = int(size[0]), int(size[-1])
    H, W = height // 4, width // 4
    model = ssmjax.create_model(weights=tmp_path / "ours.safetensors")
    assert model.config.image_shape == (height, width, 3)
    grid = states["plain"]["backbone.pos_embed"].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(grid, (H, W), mode="bicubic", align_corners=False)
    want = want.flatten(2).transpose(1, 2)
    torch.testing.assert_close(got["backbone.pos_embed"], want, rtol=0, atol=2e-6)


def test_without_torch(convert, refused, monkeypatch, states, tmp_path):
    """Only .pth needs it: safetensors go there and back without."""
    pickled, safe = tmp_path / "official.pth", tmp_path / "official.safetensors"
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back"
    torch.save(states["vim"], pickled)
    safetensors.numpy.save_file({key: t.numpy() for key, t in states["vim"].items()}, safe)
    monkeypatch.setitem(sys.modules, "torch", None)
    error = refused(pickled, "--model", "vim", "--out", ours)
    assert "pip install 'ssmjax[convert]'" in error and not ours.exists()
    assert convert(safe, "--model", "vim", "--out", ours)[::2] == (0, "")
    error = refused(ours, "--to-torch", "--out", back.with_suffix(".pth"))
    assert "pip install 'ssmjax[convert]'" in error
    out = back.with_suffix(".safetensors")
    assert convert(ours, "--to-torch", "--out", out)[::2] == (0, "")
    assert sorted(p.name for p in tmp_path.glob("back*")) == ["back.safetensors"]


# What `python -m ssmjax.convert` does.
AS_A_MODULE = """
import runpy, sys, ssmjax
assert "torch" not in sys.modules
try:
    runpy.run_module("ssmjax.convert", run_name="__main__", alter_sys=True)
finally:
    assert "torch" not in sys.modules
"""


def test_as_a_module_and_the_library_without_torch():
    """The command runs; importing ssmjax and failing early never load torch."""
    command = [sys.executable, "-c", AS_A_MODULE, "none.pth", "--out", "x.safetensors"]
    command += ["--model", "vim_tiny_patch16_224"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: There is no checkpoint file none.pth; check the path.\n"


def test_tensors_as_they_are(states, small_models):
    """Parameters that want gradients, and bfloat16, which numpy lacks."""
    model = ssmjax.create_model("vim", num_classes=3)
    tensors = {name: torch.nn.Parameter(tensor) for name, tensor in states["vim"].items()}
    ssmjax.load_torch_state_dict(model, tensors)
    ssmjax.load_torch_state_dict(model, {n: t.bfloat16() for n, t in tensors.items()})
    got = ssmjax.to_torch_state_dict(model)["head.weight"]
    chex.assert_trees_all_equal(got, tensors["head.weight"].detach().bfloat16().float().numpy())
