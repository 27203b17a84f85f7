"""The job on a folder of photos, with what may be wrong in it; and numbers that go wrong."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

import ssmjax
from ssmjax import command_line
from ssmjax.weights import read_metadata
from train import finetune


@pytest.fixture
def photos(tmp_path):
    """Two splits of two classes; one of the twelve training photos is cut short."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, bright in (("dark", 0), ("light", 128)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(bright, bright + 100, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    cut = tmp_path / "photos" / "train" / "dark" / "3.png"
    cut.write_bytes(cut.read_bytes()[:100])
    return tmp_path / "photos"


@pytest.fixture
def run(config_file, dense, photos, tmp_path, monkeypatch, capsys):
    """Runs the small config on the folder; gives the exit status and what was said."""

    def start(*options):
        given = {
            "--config": config_file,
            "--workdir": tmp_path / "run",
            "--data.source": "folder",
            "--data.path": photos,
            "--data.data-dir": tmp_path / "prepared",
            "--data.train-split": "train",
            "--data.eval-split": "val",
            "--optim.batch-size": 4,
        }
        arguments = [str(part) for pair in given.items() for part in pair] + list(map(str, options))
        monkeypatch.setattr(sys, "argv", ["train.finetune", *arguments])
        status = 0
        try:
            command_line.run(finetune.main)
        except SystemExit as stop:
            status = stop.code
        return status, " ".join(capsys.readouterr().err.split())

    return start


@pytest.mark.slow
def test_new_classes_from_a_folder_with_an_unreadable_photo(run, dense, tmp_path):
    weights = ("--model.weights", dense / "weights.safetensors", "--model.new-head")
    status, said = run(*weights, "--data.max-unreadable", 1, "--profile")
    assert status == 0, said
    assert said.count("skipped the unreadable photo") == 1 and "dark/3.png" in said
    folder = tmp_path / "run"
    assert read_metadata(folder / "weights.safetensors").class_names == ("dark", "light")
    model = ssmjax.create_model(weights=folder / "weights.safetensors")
    assert model.config.num_classes == 2 and model.config.prune is not None
    assert any((folder / "profile").rglob("*.xplane.pb"))
    assert '"unreadable_photos": ["dark/3.png"]' in (folder / "log.jsonl").read_text()
    with (folder / "log.csv").open() as file:
        assert [row["unreadable"] for row in csv.DictReader(file)][-2] == "1"
    regimes = [row["regime"] for row in json.loads((folder / "results.json").read_text())]
    tuned = ("raw, best epoch", "raw", "best epoch")
    assert regimes[:5] == ["dense", *["zero-shot"] * 4]
    assert regimes[5:] == [*(f"fine-tuned, {which}" for which in tuned), "fine-tuned"]


def test_what_is_refused_in_a_folder(run, dense, photos):
    status, said = run("--model.weights", dense / "weights.safetensors")
    assert status == 2 and "has 2 classes (dark, light), the weights know 10 (airplane" in said
    status, said = run("--data.train-split", "training")
    assert status == 2 and 'no folder "training"' in said
    status, said = run()
    assert status == 2 and "dark/3.png" in said and "--data.max-unreadable" in said
    empty = photos / "train" / "grey"
    empty.mkdir()
    (photos / "val" / "grey").mkdir()
    status, said = run()
    assert status == 2 and "grey" in said and said.startswith("error: ")


@pytest.mark.slow
def test_numbers_that_are_not_finite_end_the_run(run):
    given = ("--data.max-unreadable", 1, "--optim.lr", 1e30, "--optim.warmup-epochs", 0)
    status, said = run(*given, "--optim.max-skipped", 2, "--log-every", 100)
    assert status == 2
    assert "not finite in 3 steps in a row; the last is step 4, batch 1 of epoch 2" in said
