"""Every row of the paper's table 1 on a small fake ImageNet."""

import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssmjax import command_line, imagenet
from tests.train.conftest import ROOT, losses
from train import finetune

CONFIGS = sorted((ROOT / "configs").glob("imagenet_*.py"))

# Of the whole model and per image, both of Vim's directions counted.
PARAMETERS = {
    "vim_tiny": 7_148_008,
    "vim_small": 25_796_584,
    "plainmamba_l1": 7_551_656,
    "plainmamba_l2": 26_145_832,
    "plainmamba_l3": 50_956_456,
}
TOKENS = {
    "vim_tiny": "196 > 157 > 126",
    "vim_small": "196 > 157 > 126 > 101",
    "plainmamba_l1": "196 > 157 > 126",
    "plainmamba_l2": "196 > 161 > 133 > 110",
    "plainmamba_l3": "196 > 147 > 111 > 84 > 63",
}


class FakeImagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """ImageNet's features, and as few photos as one likes."""

    name = "imagenet2012"
    VERSION = tfds.core.Version("5.1.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(imagenet.synsets())),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        counts = {"train": 1000, "validation": 4}
        return {split: self._generate_examples(count) for split, count in counts.items()}

    def _generate_examples(self, count):
        rng = np.random.default_rng(count)
        for key in range(count):
            jpeg = cv2.imencode(".jpg", rng.integers(0, 256, (24, 32, 3), np.uint8))[1].tobytes()
            yield key, {"image": jpeg, "label": key, "file_name": f"{key}.JPEG"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    FakeImagenet(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train.finetune", *map(str, arguments)])
    command_line.run(finetune.main)


def test_there_is_a_config_for_every_row_of_table_1():
    kinds = ("dense", "evit", "prune")
    names = {f"imagenet_{model}_{kind}" for model, kind in itertools.product(PARAMETERS, kinds)}
    assert {path.stem for path in CONFIGS} == names


FIRST = {"imagenet_vim_tiny_prune", "imagenet_plainmamba_l1_prune"}  # One of each family.


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=() if p.stem in FIRST else pytest.mark.slow)
        for p in CONFIGS
    ],
)
def test_dry_run(photos, path, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    given = ("--config", path, "--workdir", workdir, "--data.data-dir", photos, "--dry-run")
    run(monkeypatch, *given, "--optim.batch-size", 8)
    out = capsys.readouterr().out
    model, kind = path.stem.removeprefix("imagenet_").rsplit("_", 1)
    assert f"{PARAMETERS[model]:,} parameters" in out
    assert ("tokens:    196\n" if kind == "dense" else f"tokens:    {TOKENS[model]}\n") in out
    assert "image uint8 [8, 224, 224, 3]" in out and "logits [8, 1000]" in out
    assert "3,750, 125 an epoch" in out
    assert "missing:   There is no weight file weights/" in out
    config = json.loads(out[: out.index("\n}\n") + 2])
    alignment = {"dense": None, "evit": "none", "prune": "previous"}[kind]
    assert (config["prune"] or {}).get("alignment") == alignment
    assert not workdir.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("name", ["vim_tiny_prune", "vim_tiny_evit"])
def test_two_steps(command, photos, tmp_path, name):
    code, _, err = command(
        "train.finetune",
        *("--config", Path("configs") / f"imagenet_{name}.py"),
        *("--workdir", tmp_path, "--data.data-dir", photos, "--model.weights", None),
        *("--optim.batch-size", 4, "--optim.epochs", 0.008, "--optim.warmup-epochs", 0),
        *("--eval-batch-size", 4, "--log-every", 1, "--pictures", 2),
    )
    assert code == 0, err
    first, second = losses(tmp_path).values()
    # Untrained, over 1,000 classes: about ln 1000.
    assert abs(first - np.log(1000)) < 1 and abs(second - np.log(1000)) < 1
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["regime"] for row in rows] == ["from scratch, raw", "from scratch"]
    assert {row["tokens"] for row in rows} == {"196>157>126"}
