"""What is measured before the training is measured once."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from ssmjax import PruneConfig, create_model, imagenet
from ssmjax.weights import Metadata, read_metadata, save_weights
from tests.ssmjax.blank import blank_model
from train.config import Config, DataConfig, ModelConfig
from train.engine.kept import Kept
from train.hosts.devices import make_mesh
from train.hosts.runtime import Runtime, bars
from train.reports.untrained import scores_of, untrained
from train.tasks.task import open_task

NAMES = ["dense", "pruned", "pruned, no alignment", "pruned at random", "pruned evenly"]
TITLES = [NAMES[0], *(f"{name}, zero-shot" for name in NAMES[1:])]


def test_what_a_vit_is_compared_with():
    """It has nothing to align, and without scores nothing to fuse by."""
    evit = PruneConfig((1,), 0.5, importance="attention", reduction="fuse")
    config = Config(ModelConfig(weights="any.safetensors"), prune=evit)
    model = blank_model("deit_tiny_patch16_224", depth=1)
    names, _, models = zip(*untrained(open_task(config), model), strict=True)
    assert names == ("dense", "pruned", "pruned at random", "pruned evenly")
    pruned = [(m.config.prune.importance, m.config.prune.reduction) for m in models[1:]]
    assert pruned == [("attention", "fuse"), ("random", "drop"), ("uniform", "drop")]


@pytest.fixture
def start(tmp_path, capsys):
    """Measures as one start of a run does; gives the scores, and which were measured now."""
    weights = tmp_path / "weights.safetensors"
    name = "vim_tiny_patch16_224"
    config = Config(ModelConfig(weights=str(weights)), prune=PruneConfig((1,), 0.5))
    model = create_model(name, depth=2, embed_dim=16, img_size=32)
    save_weights(weights, model, Metadata(name, {}, (), imagenet.preprocessing(name)))

    def measured(config=config, identity="split", killed_at=None):
        seen = []

        def measure(model, title):
            if title == killed_at:
                raise KeyboardInterrupt
            seen.append(title)
            return {"accuracy": len(title) / 100, "top5": 1.0}

        task, split = open_task(config), SimpleNamespace(identity=identity)
        job: Any = SimpleNamespace(
            task=task,
            eval_split=split,
            runtime=Runtime(make_mesh(), bars()),
            measure=measure,
            kept=Kept(tmp_path / "measured.json"),
        )
        scores = []
        try:
            for other in untrained(task, model):
                scores.append(scores_of(job, other.model, other.title)["accuracy"])
        except KeyboardInterrupt:
            scores = None
        return scores, seen, capsys.readouterr().err

    measured.config, measured.weights = config, weights
    return measured


def test_a_second_start_measures_nothing(start):
    scores, seen, said = start()
    assert scores == [len(title) / 100 for title in TITLES] and seen == TITLES and not said
    again, seen, said = start()
    assert again == scores and seen == []
    assert said.splitlines()[0] == "dense: 5.00%, measured at an earlier start"
    assert len(said.splitlines()) == 5


def test_what_a_kill_left_is_gone_on_with(start):
    scores, seen, _ = start(killed_at=TITLES[3])
    assert scores is None and seen == TITLES[:3]
    scores, seen, _ = start()
    assert scores == [len(title) / 100 for title in TITLES] and seen == TITLES[3:]


def test_a_change_of_what_it_depends_on_measures_anew(start):
    start()
    prune = dataclasses.replace(start.config, prune=PruneConfig((1,), 0.25))
    assert start(prune)[1] == TITLES[1:]  # Not the dense model.
    for other in (
        dataclasses.replace(prune, seed=1),
        dataclasses.replace(prune, data=DataConfig(eval_split="train")),
        dataclasses.replace(prune, eval_batch_size=3),
        dataclasses.replace(prune, model=dataclasses.replace(prune.model, new_head=True)),
    ):
        assert start(other)[1] == TITLES and start(other)[1] == []
    start(prune)
    assert start(prune, identity="another")[1] == TITLES
    start(prune)
    other = create_model("vim_tiny_patch16_224", seed=1, depth=2, embed_dim=16, img_size=32)
    save_weights(start.weights, other, read_metadata(start.weights))
    assert start(prune)[1] == TITLES
    assert start(dataclasses.replace(prune, log_every=1))[1] == []


def test_a_file_that_cannot_be_read_holds_nothing(tmp_path):
    path = tmp_path / "measured.json"
    for text in ("", "[1, 2", "3", '{"a": 3}', '{"a": {"depends": 1}}'):
        path.write_text(text)
        assert Kept(path).get("a", 1) is None
    kept = Kept(path)
    kept.put("a", (1, "b"), 0.5)
    kept.put("c", 2, [1.5])
    assert Kept(path).get("a", (1, "b")) == 0.5 and Kept(path).get("a", (1, "c")) is None
    assert Kept(path).get("c", 2) == [1.5]
    assert set(json.loads(path.read_text())) == {"a", "c"}
