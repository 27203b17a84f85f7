"""Weight files, runs and configs of an earlier version; see tests/golden/before_wings/README.md."""

import dataclasses
import json
import shutil
import sys

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy

import ssmjax
from ssmjax import PruneConfig
from ssmjax.dense import registry
from ssmjax.weights import read_metadata
from tests.train.conftest import ROOT
from train import cli
from train.compare.config import Comparison
from train.config import Config

FOLDER = ROOT / "tests" / "golden" / "before_wings"
CONFIGS = json.loads((FOLDER / "configs.json").read_text())
CREATE = {"classifier": ssmjax.create_model, "dense": registry.create_model}


@pytest.mark.parametrize("name", CREATE)
def test_a_weight_file_holds_a_pruned_model_with_its_values(name):
    path = FOLDER / f"{name}.safetensors"
    model = CREATE[name](weights=path)
    assert read_metadata(path).class_names == ("ant", "bee", "cup")
    prune = model.config.prune if name == "classifier" else model.config.backbone.prune
    assert isinstance(prune, PruneConfig) and prune.after_blocks == (1,)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)
    answers = np.load(FOLDER / "answers.npz")
    forward = jax.jit(lambda images: model(images))
    chex.assert_trees_all_close(np.asarray(forward(images)), answers[name], rtol=1e-4, atol=1e-5)


@pytest.fixture
def workdir(tmp_path):
    """A copy of the run."""
    return shutil.copytree(FOLDER / "run", tmp_path / "run")


def test_a_run_goes_on_with_the_weights_of_its_checkpoint(command, workdir, data_dir):
    path = workdir / "weights.safetensors"
    ended = safetensors.numpy.load_file(path)
    path.unlink()
    options = "--resume", "auto", "--data.data-dir", data_dir
    code, out, err = command(
        "train.finetune", "--config", FOLDER / "run.py", "--workdir", workdir, *options
    )
    assert code == 0, err
    assert "going on from step 2" in out + err
    chex.assert_trees_all_equal(safetensors.numpy.load_file(path), ended)


def test_a_run_is_evaluated(command, workdir, data_dir):
    lines = map(json.loads, (workdir / "log.jsonl").read_text().splitlines())
    (accuracy,) = (line["accuracy"] for line in lines if "accuracy" in line)
    options = "--checkpoint", workdir, "--data.data-dir", data_dir
    code, out, err = command("train.evaluate", "--config", FOLDER / "run.py", *options)
    assert code == 0, err
    assert f"top-1 {100 * accuracy:.2f}%" in out


def among(found, known):
    """What `found` says of all that `known` does: fields may have been added since."""
    if isinstance(known, dict):
        return {key: among(found[key], value) for key, value in known.items()}
    if isinstance(known, list):
        return [among(*pair) for pair in zip(found, known, strict=True)]
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_comes_to_the_same_values(name):
    kind = Comparison if name.startswith("compare") else Config
    config = cli.load_config(str(FOLDER / "configs" / name), kind)
    found = json.loads(json.dumps(dataclasses.asdict(config)))
    assert among(found, CONFIGS[name]) == CONFIGS[name]


@pytest.mark.parametrize(("former", "today"), cli.MOVED.items())
def test_a_config_may_import_modules_by_their_former_names(tmp_path, former, today):
    path, finders = tmp_path / "config.py", list(sys.meta_path)
    path.write_text(
        f"import {former}, {today}\n"
        "from train.config import Config\n"
        f"names = [name for name in vars({today}) if not name.startswith('__')]\n"
        f"assert names\n"
        f"assert all(getattr({former}, name) is getattr({today}, name) for name in names)\n"
        "config = Config(seed=3)\n"
    )
    assert cli.load_config(str(path), Config).seed == 3
    assert sys.meta_path == finders


def test_a_module_that_never_was_is_missed(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("import train.dense_recipe\n")
    with pytest.raises(ValueError, match=r"fails: No module named 'train.dense_recipe'"):
        cli.load_config(str(path), Config)
