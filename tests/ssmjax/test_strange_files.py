"""Files that are not what a command asked for: one line that says what they are."""

import re

import pytest
import safetensors.numpy

from ssmjax.weights import read_metadata

torch = pytest.importorskip("torch")

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
CONTENTS = {
    "empty": (b"", "it is empty: copy it again"),
    "pointer": (POINTER, "it is a pointer of Git LFS: fetch the file itself with git lfs pull"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in", "it is a web page: download the file itself"),
    "error page": (b"<?xml version='1.0'?><Error>", "it is a web page: download the file itself"),
    "text": ("Gewichte: später\n".encode() * 60, "it is a text: name the file with the weights"),
    "bytes": (bytes(range(256)) * 3, "it may be cut short: copy it again"),
}
KINDS = pytest.mark.parametrize("kind", CONTENTS)


def weights_error(path):
    with pytest.raises(ValueError, match=re.escape(path.name)) as error:
        read_metadata(path)
    assert "\n" not in str(error.value) and str(error.value).startswith((str(path), "There is no"))
    return str(error.value)


@KINDS
def test_in_place_of_weights(tmp_path, kind):
    content, said = CONTENTS[kind]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    error = weights_error(path)
    assert "is not a readable safetensors file" in error and error.endswith(f"; {said}.")


@KINDS
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_in_place_of_checkpoints(refused, small_models, tmp_path, kind, suffix):
    content, said = CONTENTS[kind]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    error = refused(path, "--model", "vim", "--out", tmp_path / "b.safetensors")
    what = "whole file of torch.save" if suffix == ".pth" else "readable safetensors file"
    assert f"{path} is not a {what}" in error and said in error


def test_folders(refused, small_models, tmp_path):
    assert weights_error(tmp_path) == (
        f"There is no weight file {tmp_path}; that is a folder; name the file in it."
    )
    error = refused(tmp_path, "--model", "vim", "--out", tmp_path / "b.safetensors")
    assert f"There is no checkpoint file {tmp_path}; that is a folder; name the file" in error
    assert weights_error(tmp_path / "none").endswith("none; check the path.")


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_as_weights(states, tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save(states["vim"], path, _use_new_zipfile_serialization=zipped)
    assert "it is a file of PyTorch: turn it into a weight file with python -m ssmjax.convert" in (
        weights_error(path)
    )


def test_official_safetensors_as_weights(states, tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({key: t.numpy() for key, t in states["vim"].items()}, path)
    assert "an official one becomes a weight file by python -m ssmjax.convert" in weights_error(
        path
    )


def test_a_weight_file_as_checkpoint(convert, refused, states, tmp_path):
    torch.save(states["vim"], tmp_path / "a.pth")
    ours = tmp_path / "b.safetensors"
    assert convert(tmp_path / "a.pth", "--model", "vim", "--out", ours)[::2] == (0, "")
    error = refused(ours, "--model", "vim", "--out", tmp_path / "c.safetensors")
    assert f"{ours} is a weight file of ssmjax already; with --to-torch it becomes" in error


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_cut_short(refused, states, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(states["vim"], path)
    else:
        safetensors.numpy.save_file({key: t.numpy() for key, t in states["vim"].items()}, path)
    path.write_bytes(path.read_bytes()[:-90])
    error = refused(path, "--model", "vim", "--out", tmp_path / "b.safetensors")
    assert "; it may be cut short: copy it again." in error


def test_safetensors_under_another_name(refused, states, tmp_path):
    path = tmp_path / "a.pth"
    safetensors.numpy.save_file({key: t.numpy() for key, t in states["vim"].items()}, path)
    error = refused(path, "--model", "vim", "--out", tmp_path / "b.safetensors")
    assert "it is a safetensors file: name it so" in error
