"""The convert command on every bad file and option: one line, nothing run, nothing written."""

import os
import pickle
from pathlib import Path

import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")


class Code:
    """Unpickled, it would make a file."""

    def __init__(self, target, how):
        self.target, self.how = target, how

    def __reduce__(self):
        if self.how == "system":
            return os.system, (f"touch {self.target}",)
        if self.how == "eval":
            return eval, (f"open({str(self.target)!r}, 'w').close()",)
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 2", "pickle 4"])
@pytest.mark.parametrize("how", ["system", "eval", "method"])
def test_code_in_a_file_is_never_run(refused, states, tmp_path, kind, how):
    target, path, out = (tmp_path / name for name in ("made", "evil.pth", "out.safetensors"))
    content = {"model": states["vim"], "args": Code(target, how)}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content["args"], protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    error = refused(path, "--model", "vim", "--out", out)
    assert str(path) in error and "could run any code" in error
    if kind != "pickle 4":
        asked = {"system": f"{os.system.__module__}.system", "eval": "eval", "method": "getattr"}
        assert f"it asks for {asked[how]}," in error
    assert os.listdir(tmp_path) == ["evil.pth"]
    pickle.loads(pickle.dumps(content["args"]))
    assert target.exists()  # So the trap was set.


def bad_file(folder, kind, states):
    """A file that is no sound checkpoint of `vim`."""
    safe = kind.startswith("safetensors")
    path = folder / ("bad.safetensors" if safe else "bad.pth")
    state = dict(states["vim"])
    key = "layers.1.mixer.D"
    if kind == "folder":
        path.mkdir()
        return path
    contents = {
        "NaN": state | {key: torch.full_like(state[key], torch.nan)},
        "missing key": {name: tensor for name, tensor in state.items() if name != key},
        "unused key": state | {"layers.2.mixer.D": state[key]},
        "shape": state | {key: torch.zeros(31)},
        "whole numbers": state | {key: torch.zeros(32, dtype=torch.int32)},
        "wrong model": {"model": states["vim_wide"]},
        "finer patches": {"model": states["vim_fine"]},
        "no head": {name: tensor for name, tensor in state.items() if "head" not in name},
        "empty head": state | {"head.bias": torch.zeros(0), "head.weight": torch.zeros(0, 16)},
        "no tensor": {"net": state, "epoch": 3},
        "number": 3,
        "sparse": {"head.bias": torch.eye(3).to_sparse()},
        "nothing": {},
        "own type": {"model": state, "args": Code(folder, "method").__class__},
    }
    if kind in contents:
        torch.save(contents[kind], path)
        return path
    if safe:
        safetensors.numpy.save_file({name: t.numpy() for name, t in state.items()}, path)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization="legacy" not in kind)
    whole = path.read_bytes()
    if "cut" in kind:
        path.write_bytes(whole[: len(whole) // 2])
    elif "header" in kind:
        path.write_bytes(whole[:60])
    elif "damaged" in kind:
        path.write_bytes(whole[:300] + bytes(600) + whole[900:])
    elif "text" in kind:
        path.write_text("<html>Sign in</html>")
    elif "empty" in kind:
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("NaN", "does not fit vim: 1 problem with the state_dict: layers.1.mixer.D holds values"),
        (
            "missing key",
            "does not fit vim: 1 problem with the state_dict: missing layers.1.mixer.D",
        ),
        ("unused key", "does not fit vim: 1 problem with the state_dict: unused layers.2.mixer.D"),
        ("shape", "layers.1.mixer.D has shape (31,), not (32,)"),
        ("whole numbers", "layers.1.mixer.D holds int32, not floating-point numbers"),
        ("wrong model", "does not fit vim; it looks like vim_wide: "),
        ("finer patches", "does not fit vim; it looks like vim_fine: pos_embed has shape (1, 50,"),
        ("no head", "missing head.bias"),
        ("empty head", "head.bias has shape (0,), not (1000,)"),
        ("no tensor", "holds net (dict), epoch (int) where only tensors belong"),
        ("number", "holds no state_dict, only an object of type int"),
        ("sparse", "holds tensors of an unusual kind"),
        ("nothing", "missing cls_token"),
        ("own type", "it asks for test_convert_refused.Code"),
        ("zip cut", "is not a whole file of torch.save"),
        ("zip header", "is not a whole file of torch.save"),
        ("zip damaged", "is not a whole file of torch.save"),
        ("legacy cut", "is not a whole file of torch.save"),
        ("legacy header", "is not a whole file of torch.save"),
        ("text", "is not a whole file of torch.save"),
        ("empty", "is not a whole file of torch.save"),
        ("folder", "There is no checkpoint file"),
        ("safetensors cut", "is not a readable safetensors file"),
        ("safetensors header", "is not a readable safetensors file"),
        ("safetensors text", "is not a readable safetensors file"),
        ("safetensors empty", "is not a readable safetensors file"),
    ],
)
def test_bad_files(refused, states, tmp_path, kind, message):
    path = bad_file(tmp_path, kind, states)
    out = tmp_path / "new" / "out.safetensors"
    error = refused(path, "--model", "vim", "--out", out)
    assert str(path) in error and message in error
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.safetensors"], "--model is missing; choose one of "),
        (["--model", "vim_huge", "--out", "x.safetensors"], "There is no model 'vim_huge'"),
        (["--model", "vim"], "out"),
        (["--model", "vim", "--out", "x.pth"], "--out is x.pth; its name must end in .safetensors"),
        (["--to-torch", "--out", "x.npz"], "must end in .pth or .pt or .safetensors"),
        (["--to-torch", "--ema", "--out", "x.pth"], "--ema, --img-size and --grid are for"),
        (["--to-torch", "--out", "x.pth"], "good.pth is not a readable safetensors file"),
        (["--model", "vim", "--out", "x.safetensors", "--img-size", "3"], "img_size is 3 x 3"),
        (["--model", "vim", "--out", "x.safetensors", "--img-size", "8", "8", "8"], "img_size is"),
        (["--model", "plain", "--out", "x.safetensors", "--ema"], "it holds cls_token, pos_embed"),
    ],
)
def test_bad_options(refused, monkeypatch, states, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    torch.save(states["vim"], "good.pth")
    assert message in refused("good.pth", *arguments)
    assert os.listdir(tmp_path) == ["good.pth"]


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_failed_write_leaves_what_was_there(convert, refused, monkeypatch, states, tmp_path, way):
    official, ours = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save(states["vim"], official)
    assert convert(official, "--model", "vim", "--out", ours)[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    if way == "there":
        out, arguments = ours, [official, "--model", "vim"]
    else:
        out, arguments = tmp_path / "back.pth", [ours, "--to-torch"]
    error = refused(*arguments, "--out", out)
    assert error == f"error: {out} cannot be written: No space left on device.\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_distilled_model(refused, states, tmp_path):
    official = tmp_path / "distilled.pth"
    torch.save({"model": states["deit"] | {"dist_token": torch.zeros(1, 1, 16)}}, official)
    error = refused(official, "--model", "deit", "--out", tmp_path / "ours.safetensors")
    assert f"{official} does not fit deit: The state_dict holds dist_token: a distilled" in error
    assert os.listdir(tmp_path) == [official.name]


def test_neither_over_the_input_nor_over_a_folder(refused, monkeypatch, states, tmp_path):
    monkeypatch.chdir(tmp_path)
    safetensors.numpy.save_file(
        {key: t.numpy() for key, t in states["vim"].items()}, "a.safetensors"
    )
    before = Path("a.safetensors").read_bytes()
    error = refused("a.safetensors", "--model", "vim", "--out", tmp_path / "a.safetensors")
    assert "--out is the checkpoint itself" in error
    assert Path("a.safetensors").read_bytes() == before
    Path("b.safetensors").mkdir()
    error = refused("a.safetensors", "--model", "vim", "--out", "b.safetensors")
    assert "--out is b.safetensors, a folder" in error
