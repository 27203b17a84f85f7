"""What may differ where a run is gone on with, and what is said of the rest."""

import dataclasses
import json

import jax
import pytest

from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry
from train.config import Config, DataConfig, ModelConfig, OptimConfig
from train.data.dense.config import DetectionData
from train.engine.workdir import FREE, GROWING, Difference, open_workdir
from train.hosts.fields import absolute, absolute_path

CONFIG = Config(
    optim=OptimConfig(epochs=4, drop_epochs=(2.0,), schedule="step"),
    prune=PruneConfig((1, 2), 0.5),
)
change = dataclasses.replace


def open_again(workdir, config, **options):
    return open_workdir(workdir, config, "auto", "begun", free=(*FREE, *GROWING), **options)


@pytest.fixture
def begun(tmp_path):
    """A folder where the run of `CONFIG` has begun."""
    assert open_again(tmp_path, CONFIG) == []
    (tmp_path / "begun").touch()
    return tmp_path


def recorded(workdir):
    return json.loads((workdir / "config.json").read_text())


def test_the_same_config_goes_on(begun):
    assert open_again(begun, CONFIG) == []


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (change(CONFIG, log_every=3), Difference("log_every", 20, 3)),
        (change(CONFIG, evaluate_every=2), Difference("evaluate_every", 1, 2)),
        (change(CONFIG, eval_batch_size=7), Difference("eval_batch_size", 200, 7)),
        (
            change(CONFIG, data=DataConfig(data_dir="elsewhere")),
            Difference("data.data_dir", *map(absolute_path, (DataConfig().data_dir, "elsewhere"))),
        ),
        (
            change(CONFIG, optim=change(CONFIG.optim, epochs=6.5)),
            Difference("optim.epochs", 4, 6.5),
        ),
    ],
)
def test_what_may_differ_is_told_and_recorded(begun, config, difference):
    assert open_again(begun, config) == [difference]
    assert open_again(begun, config) == []
    assert recorded(begun) == json.loads(json.dumps(absolute(config)))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (change(CONFIG, seed=7), "seed is 0 there and 7 here."),
        (
            change(CONFIG, optim=change(CONFIG.optim, lr=1.0)),
            "optim.lr is 0.001 there and 1.0 here",
        ),
        (
            change(CONFIG, optim=change(CONFIG.optim, epochs=3)),
            "optim.epochs is 4 there and 3 here; it may only grow.",
        ),
        (
            change(CONFIG, optim=change(CONFIG.optim, steps=300)),
            "optim.steps is null there and 300 here. Give",
        ),
        (
            change(CONFIG, optim=change(CONFIG.optim, drop_epochs=(3.0,))),
            "optim.drop_epochs is [2.0] there and [3.0] here.",
        ),
        (change(CONFIG, prune=None), '"keep_ratio": 0.5'),
        (
            change(CONFIG, prune=PruneConfig((1,), 0.25), log_every=1),
            "is [1, 2] there and [1] here; other values too of prune.keep_ratio. Give",
        ),
        (
            change(CONFIG, seed=1, optim=OptimConfig(lr=0.5, clip=None, b2=0.5, weight_decay=0)),
            "other values too of optim.schedule, optim.drop_epochs, optim.epochs, "
            "optim.weight_decay, optim.b2, optim.clip and 1 more. Give",
        ),
        (change(CONFIG, data=DetectionData()), 'there and {"path": "/'),
    ],
)
def test_what_may_not_is_refused_in_a_short_line(begun, config, sentence):
    with pytest.raises(ValueError, match="holds a run of another config") as refused:
        open_again(begun, config)
    said = str(refused.value)
    assert f"{begun} holds a run of another config: " in said and sentence in said
    assert "\n" not in said and len(said) < 300 + len(str(begun))
    assert open_again(begun, CONFIG) == []  # What is recorded is still the run's own.


def test_one_place_however_it_is_written(tmp_path, monkeypatch):
    def of(path):
        return change(CONFIG, model=ModelConfig(weights=str(path)))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_again(tmp_path, of("~/a.safetensors"))
    (tmp_path / "begun").touch()
    for path in ("home/a.safetensors", tmp_path / "home" / "a.safetensors", "./home/a.safetensors"):
        assert open_again(tmp_path, of(path)) == []
    with pytest.raises(ValueError, match="model.weights is"):
        open_again(tmp_path, of("a.safetensors"))


def test_records_of_other_versions(begun):
    """They may lack fields, which are then as by default, or have others."""
    record = recorded(begun)
    del record["optim"]["ema_warmup"], record["data"]["max_unreadable"]
    record["optim"]["gone"] = 1
    (begun / "config.json").write_text(json.dumps(record))
    assert open_again(begun, CONFIG) == []
    del (record := recorded(begun))["optim"]["ema_warmup"]
    (begun / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"optim.ema_warmup is true there and false here"):
        open_again(begun, change(CONFIG, optim=change(CONFIG.optim, ema_warmup=False)))
    (begun / "config.json").write_text("[3")
    with pytest.raises(ValueError, match=r"config.json is not the config of a run"):
        open_again(begun, CONFIG)


def test_inside_of_comparisons(tmp_path):
    model = ModelConfig("vim_tiny_patch16_224", weights="some")
    one = Comparison({"a": model}, (Entry("a", "dense"), Entry("a", "way", PruneConfig((1,), 0.5))))
    open_workdir(tmp_path, one, "auto", "begun")
    (tmp_path / "begun").touch()
    record = recorded(tmp_path)
    del record["models"]["a"]["width"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert open_workdir(tmp_path, one, "auto", "begun") == []
    other = change(one, entries=(one.entries[0], Entry("a", "way", PruneConfig((1,), 0.7))))
    with pytest.raises(ValueError, match=r"entries.1.prune.keep_ratio is 0.5 there and 0.7 here"):
        open_workdir(tmp_path, other, "auto", "begun")


def test_the_first_process_alone_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert open_again(tmp_path, CONFIG) == [] and not (tmp_path / "config.json").exists()
