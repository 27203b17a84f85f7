"""Paths in options and configs: `~`, relative ones, and those of a run that is gone on with."""

import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from ssmjax import command_line
from train import cli, finetune
from train.compare.config import Comparison, Entry
from train.config import Config, DataConfig, ModelConfig
from train.data.dense.config import DetectionData, SegmentationData
from train.engine.workdir import open_workdir
from train.hosts.fields import absolute

COMMANDS = (
    *("ssmjax.predict.options", "ssmjax.visualise", "ssmjax.export", "ssmjax.convert.__main__"),
    *(
        "ssmjax.analysis.precision",
        "train.hosts.options",
        "train.evaluate",
        "train.compare.__main__",
    ),
    *("train.bench", "train.data.bench", "train.data.trees", "train.data.composites.__main__"),
)
PATHS = {"images", "weights", "out", "picture", "checkpoint", "config", "workdir", "confusion"}
PATHS |= {"table", "photos", "path", "data_dir"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder, which is the current one too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_config_fields(home):
    assert DataConfig(source="folder", path="~/x", data_dir="~/d").path == f"{home}/x"
    assert DataConfig(data_dir="~").data_dir == str(home)
    assert ModelConfig(weights="~/w").weights == f"{home}/w"
    assert ModelConfig(classifier="~/w").classifier == f"{home}/w"
    assert Comparison(weights="~/w").weights == f"{home}/w"
    for kind in (DetectionData, SegmentationData):
        assert kind(path="~/x").path == f"{home}/x" and kind(path="a/~b").path == "a/~b"
    assert DetectionData(eval_images="~/v").eval_images == f"{home}/v"
    assert absolute(DetectionData())["eval_images"] == "val2017"
    assert ModelConfig(weights="~nobody-of-this-name/w").weights == "~nobody-of-this-name/w"


@pytest.mark.parametrize("module", COMMANDS)
def test_every_option_of_a_path_is_one(module):
    """Those are what `command_line.parse` replaces `~` in."""
    kinds = [k for n, k in vars(importlib.import_module(module)).items() if n.endswith("Options")]
    seen = 0
    for kind in filter(dataclasses.is_dataclass, kinds):
        for field in dataclasses.fields(kind):
            if field.name in PATHS and (module, field.name) != (
                "ssmjax.analysis.precision",
                "images",
            ):
                assert "Path" in str(field.type), (kind, field.name)
                seen += 1
    assert seen


def test_options(home):
    from ssmjax.predict.options import Options

    given = ["~/a [1].png", "b~.png", "~", "--weights", "~/w", "--picture", "~/o.png"]
    found = command_line.parse(Options, given)
    assert found.images == (home / "a [1].png", Path("b~.png"), home)
    assert (found.weights, found.picture) == (home / "w", home / "o.png")


def test_options_of_a_default(home):
    @dataclasses.dataclass(frozen=True)
    class Nested:
        folder: Path = Path("~/data")

    @dataclasses.dataclass(frozen=True)
    class Options:
        nested: Nested = Nested()
        number: int = 3

    assert command_line.parse(Options, []) == Options(Nested(home / "data"), 3)


def test_config_file_of_windows(home, monkeypatch):
    text = "from train.config import Config, DataConfig\n\nconfig = Config(\n"
    text += "    data=DataConfig(data_dir='~/d'),\n    seed=7,\n)\n\n"
    content = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    (home / "c.py").write_bytes(content)
    arguments = ["--config", "~/c.py", "--workdir", "~/run", "--model.weights", "~/w"]
    monkeypatch.setattr(sys, "argv", ["train.finetune", *arguments])
    config, options = cli.parse(Config, finetune.RunOptions, "")
    assert isinstance(config.data, DataConfig)
    assert config.seed == 7 and config.data.data_dir == f"{home}/d"
    assert options.workdir == home / "run" and config.model.weights == f"{home}/w"


def test_absolute_is_the_config_with_absolute_paths(home):
    config = Config(ModelConfig(weights="w/a"), DataConfig(data_dir="/d", crop_pct=0.5))
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    plain["model"]["weights"] = f"{home}/w/a"
    assert absolute(config) == plain
    models = {"a": ModelConfig(weights="w/a"), "b": ModelConfig()}
    entries = (Entry("a", "dense"), Entry("b", "dense"))
    found = absolute(Comparison(models, entries, ("speed",), weights="."))
    assert found["weights"] == str(home)
    assert [found["models"][name]["weights"] for name in "ab"] == [f"{home}/w/a", None]


def test_the_folder_above_a_link_is_that_of_what_it_leads_to(home):
    (home / "a" / "b").mkdir(parents=True)
    (home / "link").symlink_to("a/b")
    found = absolute(SegmentationData(path="link/../data"))["path"]
    assert found == os.path.realpath(home / "a" / "data")


def test_a_run_is_gone_on_with_from_another_folder(home, monkeypatch):
    (home / "one").mkdir()
    (home / "two").mkdir()

    def begin(folder, path, resume="auto"):
        monkeypatch.chdir(home / folder)
        config = Config(data=SegmentationData(path=path))
        open_workdir(home / "run", config, resume, "checkpoints/*")

    begin("one", "data", "never")
    (home / "run" / "checkpoints" / "3").mkdir(parents=True)
    for folder, path in (
        ("one", "./data"),
        ("two", "../one/data"),
        ("two", "~/one/data"),
        ("", "one/data"),
        ("one", str(home / "one" / "data")),
    ):
        begin(folder, path)
    with pytest.raises(ValueError, match="another"):
        begin("two", "data")
    with pytest.raises(ValueError, match=r"The name of caf\\xe9 is not UTF-8"):
        open_workdir(Path(os.fsdecode(b"caf\xe9")), Config(), "auto", "checkpoints/*")
