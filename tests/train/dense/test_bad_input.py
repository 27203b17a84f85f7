"""The commands on bad options, data and weights: one sentence each, and nothing left behind."""

import functools
import json
import shutil
import sys

import jax.numpy as jnp
import pytest
from flax import nnx
from PIL import Image

from ssmjax import command_line
from ssmjax.dense import registry
from ssmjax.predict import __main__ as predict
from ssmjax.preprocess import PLAIN
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, save_weights
from tests.train.dense.conftest import annotation
from train import evaluate, finetune
from train.cli import load_config
from train.config import Config


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command, which must fail: all that it says, the last line being the error."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            command_line.run(module.main)
        said = capsys.readouterr().err
        assert stop.value.code == 2, said
        assert said.splitlines()[-1].startswith("error: ") and "Traceback" not in said
        return said

    return run


@pytest.mark.slow
def test_bad_options(refused, folder, tmp_path):
    plain = tmp_path / "plain.py"
    text = (folder / "upernet.py").read_text()
    plain.write_text(text.replace("prune=DensePruneConfig(", "prune=PruneConfig("))
    good = ("--workdir", tmp_path / "run")
    upernet, retinanet = (("--config", folder / f"{n}.py", *good) for n in ("upernet", "retinanet"))
    cases = {
        "prune is a PruneConfig, which is for classifiers": ("--config", plain, *good),
        "There is no data set in": (*upernet, "--data.path", tmp_path / "none"),
        "optim.distill is 0.5; detection and segmentation do not have it": (
            *upernet,
            *("--optim.distill", 0.5, "--model.weights", "any", "--optim.label-smoothing", 0),
        ),
        "data.stride is (64, 65) and data.window is (64, 64)": (
            *upernet,
            *("--data.window", 64, 64, "--data.stride", 64, 65),
        ),
        "data.crop has 65 x 64; both sides must be multiples of 32": (
            *upernet,
            *("--data.crop", 65, 64),
        ),
        "optim.schedule is linear and optim.drop_epochs is (1,)": (
            *retinanet,
            *("--optim.schedule", "linear"),
        ),
        "is a RetinaNet, which does not fit the data": (
            *upernet,
            *("--model.name", "retinanet_plainmamba_l1", "--model.heads", 2),
        ),
        "Did you mean upernet_plainmamba_l1?": (
            *upernet,
            *("--model.name", "upernet_plainmamba_1"),
        ),
        "There is no weight file nowhere": (*upernet, "--model.classifier", "nowhere"),
        "images have up to 64 x 64 pixels; add a shape": (
            *retinanet,
            *("--data.shapes", 32, 32),
        ),
    }
    for sentence, case in cases.items():
        assert sentence in refused(finetune, *case)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def changed(**changes):
    """What does this to the first object of an annotation file."""

    def change(folder):
        path = folder / "instances.json"
        content = json.loads(path.read_text())
        content["annotations"][0] |= changes
        path.write_text(json.dumps(content))

    return change


def emptied(folder):
    path = folder / "instances.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))


def written(place, text):
    return lambda folder: (folder / place).write_text(text)


def unlinked(place):
    return lambda folder: (folder / place).unlink()


def painted(place, value, size=(64, 48)):
    """What replaces an image by one of a value, all over."""
    return lambda folder: Image.new("L", size, value).save(folder / place)


LABELS = "segments/labels/training/0.png"
BAD = {
    "annotations": ("retinanet", unlinked("instances.json"), "json cannot be read: No such file"),
    "JSON": ("retinanet", written("instances.json", "{"), "are not JSON"),
    "image": ("retinanet", unlinked("images/1.png"), "lacks 1 of its 4 files, such as "),
    "photo": ("retinanet", written("images/1.png", "no"), "is not a readable JPEG or PNG"),
    "size": ("retinanet", painted("images/0.png", 0, (9, 9)), "has 9 x 9 pixels, its annotations"),
    "objects": ("retinanet", emptied, "has no object to learn in any of its 4 images"),
    "image id": ("retinanet", changed(image_id=99), "of the image 99, which is not among"),
    "category": ("retinanet", changed(category_id=4), "the category 4, which is not among"),
    "points": ("maskrcnn", changed(segmentation=[[1, 2, 3, 4]]), "a broken polygon, [1, 2, 3, 4]"),
    "odd": ("maskrcnn", changed(segmentation=[[1] * 7]), "a broken polygon, [1, 1, 1"),
    "outside": ("maskrcnn", changed(segmentation=[[90] * 6]), "its outline outside the image"),
    "value": ("upernet", painted(LABELS, 9), "has the value 9; the 3 classes are 0 to 2 or 255"),
    "labels' size": ("upernet", painted(LABELS, 0, (9, 9)), "has 9 x 9 pixels, its image 48 x 64"),
    "labels": ("upernet", unlinked(LABELS), "1 of 4 files have no label image in "),
    "broken labels": ("upernet", written(LABELS, "no"), "The label image"),
    "broken image": (
        "upernet",
        written("segments/images/training/0.png", "no"),
        "is not a readable JPEG or PNG",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data(refused, folder, tmp_path, kind):
    name, spoil, message = BAD[kind]
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    spoil(copy)
    config = copy / f"{name}.py"
    config.write_text(config.read_text().replace(str(folder), str(copy)))
    options = ("--config", config, "--workdir", tmp_path / "run", "--optim.batch-size", 4)
    assert message in refused(finetune, *options)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_what_is_left_out_is_told_by_the_run(refused, folder, tmp_path):
    """An image without objects, a crowd and an object without area, before what stops the run."""
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "instances.json").read_text())
    of_three = [one for one in content["annotations"] if one["image_id"] != 40]
    crowd = annotation(98, 10, (1, 1, 9, 9), iscrowd=1, segmentation=None)
    content["annotations"] = [*of_three, crowd, annotation(99, 10, (1, 1, 9, 9), area=0)]
    (copy / "instances.json").write_text(json.dumps(content))
    (copy / "images" / "0.png").write_text("no")
    options = ("--config", folder / "retinanet.py", "--workdir", tmp_path / "run")
    said = refused(finetune, *options, "--data.path", copy, "--optim.batch-size", 4).splitlines()
    for fate, left_out in (
        ("they teach background", "left out"),
        ("what is found on them is wrong", "measured as COCO does"),
    ):
        assert f"instances.json: 1 of 4 images have no objects; {fate}." in said
        reasons = "1 crowds, 1 without area"
        assert f"instances.json: 2 objects are {left_out}: {reasons}." in said


@functools.cache
def zeros(config, num_classes):
    """(The name in a config, its model with zeros for values)."""
    chosen = load_config(str(config), Config).model
    options = chosen.overrides() | {"num_classes": num_classes}
    model = nnx.eval_shape(lambda: registry.create_model(chosen.name, **options))
    for leaf in flat_params(model).values():
        leaf.set_value(jnp.zeros(leaf.shape, leaf.dtype))
    return str(chosen.name), model


def blank(config, path, names, count=None):
    """A weight file of zeros, of the model of a config; of `count` classes without `names`."""
    name, model = zeros(config, count or len(names))
    changes = config_overrides(name, model.config)
    save_weights(path, model, Metadata(name, changes, names, PLAIN))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["good.png", "bad.png"], "bad.png cannot be read as an image"),
        (["none.png"], "There is no image file none.png"),
        ([], "No image was given"),
        (["good.png", "--picture", "out.jpg"], "its name must end in .png"),
        (["good.png", "--model", "upernet_plainmamba_l2"], "holds a upernet_plainmamba_l1, not a"),
        (["good.png", "--keep-ratio", "0.5"], "--after-blocks and --keep-ratio go together"),
        (["good.png", "--keep-ratio", "0.5", "--after-blocks", "9"], "the model has 2 blocks"),
    ],
)
def test_predict(refused, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    blank(folder / "upernet.py", "w.safetensors", ("ant", "bee", "cup"))
    shutil.copy(folder / "images" / "0.png", "good.png")
    (tmp_path / "bad.png").write_text("no")
    assert message in refused(predict, *arguments, "--weights", "w.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "good.png", "bad.png"}


@pytest.mark.parametrize("name", ["retinanet", "upernet"])
def test_weights_of_other_classes(refused, folder, tmp_path, name):
    """In another order, or others, or more of them; detection is measured by the names."""
    path = folder / f"{name}.py"
    weights = tmp_path / "other.safetensors"
    ours = ("ant", "cup") if name == "retinanet" else ("ant", "bee", "cup")
    for names, message in (
        (ours[::-1], f'calls class 0 "ant", the weights "{ours[-1]}"'),
        ((*ours[:-1], "mug"), f'calls class {len(ours) - 1} "cup", the weights "mug"'),
        ((*ours, "dog"), f"has {len(ours)} classes ("),
    ):
        blank(path, weights, names)
        config = ("--config", path)
        if name == "upernet":
            assert message in refused(evaluate, *config, "--checkpoint", weights)
        elif "mug" in names:
            said = refused(evaluate, *config, "--checkpoint", weights)
            assert "instances.json has the classes cup, which are not among the 2 of" in said
        run = ("--workdir", tmp_path / "run", "--model.weights", weights)
        assert message in refused(finetune, *config, *run)
        shutil.rmtree(tmp_path / "run")
    blank(path, weights, (), len(ours) + 1)
    said = refused(evaluate, "--config", path, "--checkpoint", weights)
    assert f"tells {len(ours) + 1} classes apart; the data have {len(ours)}, so give" in said


def test_weights_of_another_kind_of_model(refused, folder, tmp_path):
    weights = tmp_path / "other.safetensors"
    blank(folder / "retinanet.py", weights, ("ant", "cup"))
    for name, message in (
        ("maskrcnn", "holds a RetinaNet, but the config is for maskrcnn_plainmamba_l1; give"),
        ("upernet", "is a RetinaNet, which does not fit the data of the config"),
    ):
        config = ("--config", folder / f"{name}.py", "--checkpoint", weights)
        assert message in refused(evaluate, *config)


def test_outlines_that_are_measured(refused, folder, tmp_path):
    """Before anything is: also those of crowds."""
    weights, copy = tmp_path / "w.safetensors", tmp_path / "data"
    blank(folder / "maskrcnn.py", weights, ("ant", "cup"))
    shutil.copytree(folder, copy)
    changed(segmentation=None, iscrowd=1)(copy)
    config = ("--config", folder / "maskrcnn.py", "--data.path", copy)
    said = refused(evaluate, *config, "--checkpoint", weights)
    assert "instances.json, annotation 1 of 0.png, has no outline; masks need" in said
