"""What the commands say of files that were left out and of classes without a photo."""

import sys

import numpy as np
import pytest
from PIL import Image

from ssmjax import command_line
from train import finetune
from train.cli import load_config
from train.config import Config
from train.hosts.devices import make_mesh
from train.hosts.runtime import Runtime, bars
from train.tasks.task import open_task, tell

CONFIG = """
from train.config import Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    model=ModelConfig(
        name="vim_tiny_patch16_224", depth=1, embed_dim=16, d_state=2, img_size=16, patch_size=8
    ),
    data=DataConfig(source="folder", path="~/[pets]", eval_split="val", data_dir="~/data"),
    optim=OptimConfig(batch_size=2),
)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with photos of two classes; of one, a file of another kind too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    for split in ("train", "val"):
        for name in ("[old] cats", ":dog:"):
            folder = tmp_path / "[pets]" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(pixels).save(folder / f"{number}.TIF")
    (tmp_path / "[pets]" / "val" / ":dog:" / "1.heic").touch()
    (tmp_path / "c.py").write_text(CONFIG)
    return tmp_path


def test_dry_run(home, monkeypatch, capsys):
    arguments = ["--config", "~/c.py", "--workdir", "~/run", "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["train.finetune", *arguments])
    command_line.run(finetune.main)
    said = capsys.readouterr()
    assert f'data:      {home}/[pets], split "val": left out 1 .heic.' in said.out.splitlines()
    assert "Counting" not in said.err and not (home / "run").exists()


def test_training_and_evaluation(home, capsys):
    config = load_config("~/c.py", Config)
    task = open_task(config)
    splits = task.open_splits(())
    assert splits[0].class_names == (":dog:", "[old] cats")
    capsys.readouterr()
    tell(task, splits, Runtime(make_mesh(), bars()))
    lines = capsys.readouterr().err.splitlines()
    assert f'{home}/[pets], split "val": left out 1 .heic.' in lines


def test_what_is_told_is_one_line(capsys):
    Runtime(make_mesh(), bars()).say("a.json lacks [x]\n\x1b[31mcup")
    assert capsys.readouterr().err == "a.json lacks [x]\\n\\x1b[31mcup\n"
