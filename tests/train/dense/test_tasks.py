"""Detection and segmentation as a user runs them, on a few small images."""

import dataclasses
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file

from ssmjax.dense import registry
from ssmjax.dense.config import PRESETS
from ssmjax.dense.geometry.resize import resize
from ssmjax.dense.heads.objects import Detections
from ssmjax.preprocess import PLAIN
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, flat_params, read_metadata, save_weights
from tests.train.conftest import losses
from tests.train.processes import distributed, free_port, run_processes
from train.cli import load_config
from train.config import Config
from train.hosts.devices import make_mesh
from train.hosts.runtime import Runtime, bars
from train.tasks.detection import task as detect
from train.tasks.segmentation.loss import class_logits, classes_at, label_pixels
from train.tasks.task import open_task


@pytest.fixture(scope="module")
def run(command, folder, tmp_path_factory):
    """A finished run of a model, made once."""
    made = {}

    def of(name):
        if name not in made:
            workdir = tmp_path_factory.mktemp(name)
            arguments = ("--config", folder / f"{name}.py", "--workdir", workdir)
            code, _, err = command("train.finetune", *arguments)
            assert code == 0, err
            made[name] = workdir
        return made[name]

    return of


def log_of(workdir):
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "metrics", "picture"),
    [
        ("upernet", {"mIoU", "aAcc", "mAcc"}, "segments.png"),
        pytest.param("retinanet", {"box_AP"}, "detections.png", marks=pytest.mark.slow),
        pytest.param("maskrcnn", {"box_AP", "mask_AP"}, "detections.png", marks=pytest.mark.slow),
    ],
)
def test_run_and_evaluate(command, folder, run, name, metrics, picture):
    workdir = run(name)
    entries = log_of(workdir)
    assert len(losses(workdir)) == 2
    chex.assert_tree_all_finite(losses(workdir))
    assert metrics <= entries[-1].keys()
    (row,) = json.loads((workdir / "results.json").read_text())
    assert row["tokens"] == "16>8" and row["accuracy"] == entries[-1][open_main(folder, name)]
    assert (workdir / picture).is_file() and (workdir / "best.safetensors").is_file()
    trained = load_file(workdir / "weights.safetensors")
    (count,) = {int(v) for key, v in trained.items() if key.endswith("stem.0.norm.count")}
    assert count == 2  # Batches that the running statistics have seen.
    config = ("--config", folder / f"{name}.py", "--checkpoint", workdir)
    code, out, err = command("train.evaluate", *config)
    assert code == 0, err
    assert f"{100 * row['accuracy']:.2f}" in out and "4 images" in out


def open_main(folder, name):
    return open_task(load_config(str(folder / f"{name}.py"), Config)).metrics[0]


@pytest.mark.slow
def test_a_stopped_run_ends_the_same(command, folder, run, tmp_path):
    whole = run("upernet")
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    (tmp_path / "weights.safetensors").unlink()
    arguments = ("--config", folder / "upernet.py", "--workdir", tmp_path, "--resume", "auto")
    code, _, err = command("train.finetune", *arguments)
    assert code == 0 and "going on from step 1" in err, err
    assert losses(tmp_path) == losses(whole) and log_of(tmp_path)[-1] == log_of(whole)[-1]
    ours, theirs = (load_file(path / "weights.safetensors") for path in (tmp_path, whole))
    chex.assert_trees_all_equal(ours, theirs)


@pytest.mark.parametrize("name", ["upernet", pytest.param("maskrcnn", marks=pytest.mark.slow)])
def test_predict(command, folder, run, tmp_path, name):
    picture, photo = tmp_path / "out.png", folder / "images" / "0.png"
    weights = run(name) / "weights.safetensors"
    if name == "upernet":  # As of a checkpoint that does not name its classes.
        nameless = dataclasses.replace(read_metadata(weights), class_names=())
        model = registry.create_model(weights=weights)
        save_weights(weights := tmp_path / "nameless.safetensors", model, nameless)
    arguments = (photo, "--weights", weights, "--top", 2)
    code, out, err = command("ssmjax.predict.__main__", *arguments, "--picture", picture)
    assert code == 0, err
    assert "class " in out if name == "upernet" else "%" in out or "nothing" in out
    with Image.open(picture) as drawn:
        # The photo with what was found, and once more with the patches kept.
        assert drawn.width > 1.9 * drawn.height and np.asarray(drawn).std() > 0


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("name", ["upernet", "maskrcnn"])
def test_processes_evaluate_the_same(command, folder, run, name):
    config = ("train.evaluate", "--config", folder / f"{name}.py", "--checkpoint", run(name))
    _, one, _ = command(*config)
    address = f"localhost:{free_port()}"
    ends = run_processes(
        [("-m", *config, *distributed(address, 2, number)) for number in range(2)], timeout=400
    )
    assert [code for code, _, _ in ends] == [0, 0], ends
    scores = one.strip().split("images")[0]
    assert scores and f"\n{scores}images" in ends[0][1] and scores not in ends[1][1]


@pytest.mark.parametrize("shape", [(48, 80), (20, 33), (37, 64)])
def test_classes_at_any_size(shape):
    """As those of logits that are resized whole."""
    logits = jax.random.normal(jax.random.key(0), (32, 48, 5))
    want = jnp.argmax(resize(logits[None], shape)[0], axis=-1)
    got = classes_at(logits, jnp.array(shape), (64, 96))[: shape[0], : shape[1]]
    assert np.mean(np.asarray(got) != np.asarray(want)) < 1e-3


@pytest.mark.slow
def test_classes_through_windows():
    """As those of the mean of what is said of each, at the image's own size."""
    model = registry.create_model(
        "upernet_plainmamba_l1",
        **{"depth": 2, "embed_dim": 16, "d_state": 2, "ends": (1, 2), "width": 8},
        **{"auxiliary_width": 4, "num_classes": 5, "seed": 1},
    )
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), np.uint8)
    windows = ((32, 32), (32, 16))
    batch = {"image": images}
    given = class_logits(*nnx.split(model), batch, jax.random.key(0), PLAIN, None, windows)
    got = np.asarray(label_pixels(given, np.array([[40, 80]]), (40, 80), None))
    look = jax.jit(lambda model, part: model((part / 255 - 0.5) / 0.5))
    logits = np.zeros((1, 32, 64, 5), np.float32)
    for x in (0, 16, 32):
        logits[:, :, x : x + 32] += np.asarray(look(model, images[:, :, x : x + 32]))
    logits[:, :, 16:48] /= 2
    want = np.asarray(jnp.argmax(resize(jnp.asarray(logits), (40, 80)), axis=-1))
    assert np.mean(got != want) < 1e-3 and len(np.unique(want)) > 1


OWN = {(64, 64), (64, 96), (96, 64)}


@pytest.mark.parametrize(("own", "shapes"), [(False, {(96, 96)}), (True, OWN)])
def test_photos_are_evaluated_in_shapes_of_their_own(folder, monkeypatch, own, shapes):
    """Where that is asked for; a detector that finds nothing."""
    config = load_config(str(folder / "retinanet.py"), Config)
    data = dataclasses.replace(config.data, scale=(96, 64), shapes=((96, 96),), own_shapes=own)
    seen = set()

    def find(graphdef, state, batch, *_):
        seen.add(batch["image"].shape[1:3])
        B = len(batch["image"])
        found = Detections(*(jnp.zeros((B, 1, *last), int) for last in ((4,), (), (), ())))
        return found._replace(valid=found.valid > 0)

    monkeypatch.setattr(detect, "find", find)
    task = open_task(dataclasses.replace(config, data=data))
    model = nnx.Dict(config=nnx.static(PRESETS["retinanet_plainmamba_l1"]))
    metadata, runtime = Metadata("", {}, (), PLAIN), Runtime(make_mesh(), bars())
    scores = task.score(model, task.eval_split(()), metadata, runtime, "")
    assert isinstance(scores, detect.DetectionScores)
    assert seen == shapes and scores.box["AP"] == 0
    assert str(scores).endswith(f"4 images  shapes {len(shapes)}")


def test_weights_for_other_classes(folder, tmp_path):
    """A new head, and the rest as it was."""
    config = load_config(str(folder / "upernet.py"), Config)
    model = registry.create_model(
        config.model.name, num_classes=4, seed=5, **config.model.overrides()
    )
    overrides = config_overrides(config.model.name, model.config)
    path = tmp_path / "four.safetensors"
    save_weights(path, model, Metadata(config.model.name, overrides, ("a",) * 4, PLAIN))
    chosen = dataclasses.replace(config.model, weights=str(path))
    with pytest.raises(ValueError, match="tells 4 classes apart; the data have 3"):
        open_task(dataclasses.replace(config, model=chosen)).start(("ant", "bee", "cup"))
    chosen = dataclasses.replace(chosen, new_head=True)
    task = open_task(dataclasses.replace(config, model=chosen))
    started, metadata = task.start(("ant", "bee", "cup"))
    assert metadata.class_names == ("ant", "bee", "cup") and started.config.num_classes == 3
    ours, theirs = flat_params(started), flat_params(model)
    for name, leaf in ours.items():
        if ".classes." in name:
            assert leaf.shape[-1] == 3
        else:
            chex.assert_trees_all_equal(leaf[...], theirs[name][...])
