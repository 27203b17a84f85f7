"""Detectors side by side: every entry trained from heads of its seeds."""

import dataclasses
import json

import chex
import numpy as np
import pytest
from flax import nnx

import train.compare.run as compare_run
from ssmjax import PruneConfig
from ssmjax.dense import registry
from ssmjax.dense.backbones.ranges import DensePruneConfig
from ssmjax.weights import flat_params
from tests.train.conftest import losses
from train.compare.config import Comparison, Entry
from train.compare.records import read_records
from train.config import ModelConfig, OptimConfig
from train.data.dense.config import DetectionData
from train.engine import optim
from train.engine.session import Job
from train.metrics.coco import NAMES
from train.tasks.task import open_task

NAME = "retinanet_plainmamba_l1"
SIZES = {"depth": 2, "embed_dim": 16, "d_state": 2, "ends": (1, 2), "width": 16, "heads": 2}
PRUNED = DensePruneConfig((1,), 0.5)
UNALIGNED = DensePruneConfig((1,), 0.5, alignment="none")
ENTRIES = (
    Entry("tiny", "dense"),
    Entry("tiny", "EViT way", UNALIGNED),
    Entry("tiny", "aligned", PRUNED),
)
RUNS = [(entry.method, seed) for entry in ENTRIES for seed in (0, 1)]


@pytest.fixture(scope="module")
def comparison(folder):
    """Of a tiny detector on four photos of small objects."""
    annotations, images = "instances.json", "images"
    return Comparison(
        models={"tiny": ModelConfig(NAME, **SIZES)},
        entries=ENTRIES,
        seeds=(0, 1),
        data=DetectionData(
            *(str(folder), annotations, images, annotations, images),
            scale=(64, 64),
            shapes=((64, 64),),
        ),
        optim=OptimConfig(lr=1e-3, epochs=2, batch_size=2),
        eval_batch_size=2,
    )


@pytest.mark.slow
def test_detectors_side_by_side(comparison, tmp_path):
    two = dataclasses.replace(comparison, entries=ENTRIES[:2], measure=("accuracy",))
    compare_run.compare(two, tmp_path, "command")
    runs = read_records(tmp_path / "results.csv")
    assert [(r.method, r.seed) for r in runs] == RUNS[:4]
    names = [f"box_{name}" for name in NAMES]
    for r in runs:
        for main, every in (
            (r.zero_shot, r.zero_shot_metrics),
            (r.fine_tuned, r.fine_tuned_metrics),
        ):
            assert every is not None
            assert list(every) == names and main == every["box_AP"] and every["box_AP_large"] == -1
    logs = sorted(tmp_path.glob("runs/*/*/log.jsonl"))
    lasts = [json.loads(log.read_text().splitlines()[-1]) for log in logs]
    assert [{name: last[name] for name in names} for last in lasts] == [
        r.fine_tuned_metrics for r in runs
    ]
    seen = [losses(log.parent)[4] for log in logs]
    chex.assert_tree_all_finite(seen)
    assert seen[0] != seen[1] and seen[2] != seen[3]
    text = (tmp_path / "results.md").read_text()
    assert "| untrained % |" in text and "| box_AP_large | - | - |" in text


@pytest.mark.slow
def test_heads_follow_the_seed_and_nothing_else(comparison, tmp_path, monkeypatch):
    started = {}

    def train(job, model):
        started[job.workdir.parent.name.split("-", 2)[2], job.task.config.seed] = model
        return dict.fromkeys(job.task.metrics, 0.5)

    measured = dict.fromkeys([f"box_{name}" for name in NAMES], 0.25)
    monkeypatch.setattr(compare_run, "train", train)
    monkeypatch.setattr(Job, "measure", lambda *_: measured)
    monkeypatch.setattr(compare_run, "images_per_second", lambda *_: [100.0, 125.0, 120.0])
    monkeypatch.setattr(compare_run, "peak_memory", lambda *_: 7_000_000)
    compare_run.compare(comparison, tmp_path, "command")
    records = read_records(tmp_path / "results.csv")
    speeds, runs = records[:3], records[3:]
    assert [r.tokens for r in speeds] == ["16", "16>8", "16>8"]
    flops = [(r.backbone_flops or 0, r.flops or 0) for r in speeds]
    assert 0 < flops[1][0] < flops[0][0] < flops[0][1]
    heads = {whole - backbone for backbone, whole in flops}
    assert len(heads) == 1  # Which pruning leaves alone.
    assert [(r.method, r.seed, r.zero_shot, r.fine_tuned) for r in runs] == [
        (*run, 0.25, 0.5) for run in RUNS
    ]
    assert [model.config.backbone.prune for model in started.values()] == [
        entry.prune for entry in ENTRIES for _ in range(2)
    ]
    first, *others = (
        np.asarray(flat_params(model)["head.classes.kernel"][...]) for model in started.values()
    )
    same = [np.array_equal(first, other) for other in others]
    assert same == [False, True, False, True, False]


def test_seeds_share_an_optimiser(comparison):
    """And with it the compiled step."""
    tasks = [open_task(comparison.config(ENTRIES[0], seed)) for seed in (0, 1)]
    rate = optim.schedule(comparison.optim, 2)
    model = nnx.eval_shape(lambda: registry.create_model(NAME, **SIZES))
    first, second = (task.optimizer(model, rate) for task in tasks)
    assert first is second


def test_what_does_not_fit_the_task(comparison):
    wrong = (ENTRIES[0], Entry("tiny", "half", PruneConfig((1,), 0.5)))
    for measure in ("accuracy", "speed"):
        with pytest.raises(ValueError, match="prune is a PruneConfig, which is for classifiers"):
            Comparison(comparison.models, wrong, (measure,), data=comparison.data)
    with pytest.raises(ValueError, match=r"optim\.distill is 0.5"):
        Comparison(
            *(comparison.models, ENTRIES),
            data=comparison.data,
            optim=OptimConfig(distill=0.5),
        )
