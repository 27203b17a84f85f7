"""The convert command on detectors and segmentors: checkpoints as published, and the way back."""

import chex
import pytest
from flax import nnx

import ssmjax
from ssmjax.class_names import ADE20K, COCO
from ssmjax.convert.load import official_shapes
from ssmjax.dense.registry import create_model
from ssmjax.weights import read_metadata
from tests.ssmjax.conftest import DENSE

torch = pytest.importorskip("torch")

NAMES = ("ant", "bee ", "cup")  # As mmsegmentation has them, some end in a space.


def outline(name, num_classes=3):
    """A model as shapes without values."""
    return nnx.eval_shape(lambda: create_model(name, num_classes=num_classes))


def published(state, names=NAMES):
    """All that mmcv's runners keep."""
    notes = {"epoch": 12, "mmdet_version": "2.25.0", "CLASSES": names, "PALETTE": [[1, 2, 3]]}
    return {"meta": notes, "state_dict": state, "optimizer": {}}


@pytest.mark.parametrize("name", DENSE)
def test_there_and_back(convert, states, tmp_path, name):
    official, ours, back = (tmp_path / file for file in ("a.pth", "b.safetensors", "c.pth"))
    torch.save(published(states[name]), official)
    status, out, err = convert(official, "--model", name, "--out", ours)
    assert (status, err) == (0, "")
    assert out.startswith(f"{ours}: {name}, ") and " 3 classes, any size, " in out
    metadata = read_metadata(ours)
    assert metadata.class_names == ("ant", "bee", "cup")
    assert metadata.config == {"num_classes": 3} and metadata.preprocessing.std == (
        0.229,
        0.224,
        0.225,
    )
    assert convert(ours, "--to-torch", "--out", back)[::2] == (0, "")
    got = torch.load(back, weights_only=True)
    assert list(got) == ["meta", "state_dict"] and list(got["state_dict"]) == list(states[name])
    for key, tensor in states[name].items():
        assert got["state_dict"][key].dtype == tensor.dtype, key
        assert torch.equal(got["state_dict"][key], tensor), key


@pytest.mark.parametrize(
    ("count", "noted", "want"),
    [
        (80, None, COCO),
        (80, tuple("x" * 80), tuple("x" * 80)),
        pytest.param(150, ("sky",), ADE20K, marks=pytest.mark.slow),
        pytest.param(3, None, (), marks=pytest.mark.slow),
        (3, [1, 2, 3], ()),
    ],
)
def test_class_names(convert, tmp_path, small_models, count, noted, want):
    shapes = official_shapes(outline("uper", count))
    whole = {key: torch.zeros(shape) for key, shape in shapes.items()}
    state = {k: t.long() if k.endswith("tracked") else t for k, t in whole.items()}
    content = published(state, noted) if noted else {"state_dict": state}
    torch.save(content, tmp_path / "a.pth")
    ours = tmp_path / "b.safetensors"
    assert convert(tmp_path / "a.pth", "--model", "uper", "--out", ours)[::2] == (0, "")
    assert read_metadata(ours).class_names == want


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("wrong model", "does not fit retina; it looks like mask: "),
        ("classifier", "does not fit retina; it looks like plain: "),
        ("missing", "1 problem with the state_dict: missing neck.fpn_convs.0.conv.weight."),
        ("unused", "1 problem with the state_dict: unused bbox_head.more."),
        ("shape", "bbox_head.retina_reg.bias has shape (35,), not (36,)"),
        ("classes", "bbox_head.retina_cls.bias has shape (25,), not (18,)"),
        ("no classes", "bbox_head.retina_cls.bias has shape (0,), not (45,)"),
        ("NaN", "backbone.level_embed holds values that are not finite"),
        ("cut", "is not a whole file of torch.save"),
    ],
)
def test_bad_files(refused, states, tmp_path, change, message):
    state, path = dict(states["retina"]), tmp_path / "a.pth"
    if change == "missing":
        del state["neck.fpn_convs.0.conv.weight"]
    contents = {
        "wrong model": states["mask"],
        "classifier": states["plain"],
        "unused": state | {"bbox_head.more": torch.zeros(2)},
        "shape": state | {"bbox_head.retina_reg.bias": torch.zeros(35)},
        "classes": state | {"bbox_head.retina_cls.bias": torch.zeros(25)},
        "no classes": state | {"bbox_head.retina_cls.bias": torch.zeros(0)},
        "NaN": state | {"backbone.level_embed": torch.full((3, 16), torch.nan)},
    }
    torch.save(published(contents.get(change, state)), path)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    error = refused(path, "--model", "retina", "--out", tmp_path / "b.safetensors")
    assert str(path) in error and message in error
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_all_names_are_told(refused, states, tmp_path):
    torch.save(states["uper"], tmp_path / "a.pth")
    out = ("--out", tmp_path / "b.safetensors")
    error = refused(tmp_path / "a.pth", *out)
    assert "choose one of deit, plain, vim, vim_fine, vim_wide, mask, retina, uper." in error
    assert "Did you mean uper?" in refused(tmp_path / "a.pth", "--model", "upper", *out)


def test_one_function_loads_all(states, small_models):
    """Every key is used, every leaf filled, and one error lists all that is wrong."""
    for name in DENSE:
        model = outline(name)
        ssmjax.load_torch_state_dict(model, states[name])
        for key, array in ssmjax.to_torch_state_dict(model).items():
            chex.assert_trees_all_equal(array, states[name][key].numpy())
    bad = dict(states["uper"]) | {"more": torch.zeros(1)}
    del bad["decode_head.conv_seg.bias"]
    message = "2 problems with the state_dict: missing decode_head.conv_seg.bias; unused more"
    with pytest.raises(ValueError, match=message):
        ssmjax.load_torch_state_dict(outline("uper"), bad)
