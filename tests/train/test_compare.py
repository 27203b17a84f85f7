"""The comparison as a user runs it: going on after a kill, and what is refused."""

import dataclasses
import sys
import time

import pytest

import ssmjax
import train.compare.run as compare_run
from ssmjax import PruneConfig, command_line
from ssmjax.preprocess import Preprocessing
from ssmjax.weights import Metadata, save_weights
from tests.train.conftest import ROOT, losses
from train.cli import load_config
from train.compare.__main__ import main
from train.compare.config import Comparison
from train.compare.records import read_records
from train.data.cifar10 import CIFAR_MEAN, CIFAR_STD, CLASS_NAMES
from train.engine.session import Job

SIZES = {"depth": 2, "embed_dim": 16, "d_state": 2, "img_size": 16, "patch_size": 4}

COMPARISON = """
from ssmjax import PruneConfig
from train.compare.config import Comparison, Entry, Published
from train.config import DataConfig, ModelConfig, OptimConfig

comparison = Comparison(
    models={{"tiny": ModelConfig("vim_tiny_patch16_224", weights={weights!r}, **{sizes})}},
    entries=(
        Entry("tiny", "dense", None, Published(80.5, 5.1, 1.0)),
        Entry("tiny", "half", PruneConfig((1,), 0.5), Published(78.8, 3.6, 1.27)),
    ),
    measure={measure},
    seeds=(0, 1),
    data=DataConfig(data_dir={data_dir!r}),
    optim=OptimConfig(epochs=4, batch_size=8, lr=1e-2),
    eval_batch_size=16,
    checkpoint_every=5,
)
"""


@pytest.fixture(scope="module")
def config_file(data_dir, tmp_path_factory):
    """A comparison of a tiny model, whose weights are as good as any other."""
    folder = tmp_path_factory.mktemp("comparison")
    weights, name = str(folder / "dense.safetensors"), "vim_tiny_patch16_224"
    model = ssmjax.create_model(name, num_classes=len(CLASS_NAMES), **SIZES)
    fields = {**SIZES, "num_classes": len(CLASS_NAMES)}
    preprocessing = Preprocessing(CIFAR_MEAN, CIFAR_STD)
    save_weights(weights, model, Metadata(name, fields, CLASS_NAMES, preprocessing))
    path = folder / "tiny.py"
    given = {"weights": weights, "sizes": {}, "measure": ("speed", "accuracy")}
    path.write_text(COMPARISON.format(data_dir=str(data_dir), **given))
    return path


@pytest.fixture(scope="module")
def run():
    """Runs the command in this process."""

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train.compare", *map(str, arguments)])
            command_line.run(main)

    return run


@pytest.fixture(scope="module")
def finished(run, config_file, tmp_path_factory):
    """A comparison that was never interrupted."""
    workdir = tmp_path_factory.mktemp("finished")
    run("--config", config_file, "--workdir", workdir)
    return workdir


def accuracies(workdir):
    return [
        (r.method, r.seed, r.zero_shot, r.fine_tuned)
        for r in read_records(workdir / "results.csv")
        if r.seed is not None
    ]


def fine_tunes(workdir):
    """{step: loss} of each."""
    return [losses(path.parent) for path in sorted(workdir.glob("runs/*/*/log.jsonl"))]


def test_what_is_measured(finished):
    records = read_records(finished / "results.csv")
    found = accuracies(finished)
    assert [line[:2] for line in found] == [("dense", 0), ("half", 0), ("half", 1)]
    assert [zero_shot is None for _, _, zero_shot, _ in found] == [False, False, True]
    assert [fine_tuned is None for *_, fine_tuned in found] == [True, False, False]
    speeds = [r for r in records if r.images_per_second is not None]
    assert [r.method for r in speeds] == ["dense", "half"]
    assert [r.tokens for r in speeds] == ["16", "16>8"]
    assert all((r.peak_memory or 0) > 4 * r.parameters for r in speeds)
    assert not list(finished.glob("runs/*/*/checkpoints"))
    first, second = fine_tunes(finished)
    assert first != second


def test_table_from_the_csv_is_the_runs_own_and_a_second_run_changes_nothing(
    run, config_file, finished
):
    before = {path: path.read_bytes() for path in finished.glob("results.*")}
    assert len(before) == 2
    plots = [finished / "results_flops.png", finished / "results_speed.png"]
    for path in (finished / "results.md", *plots):
        path.unlink()
    run("--table", finished / "results.csv")
    assert {path: path.read_bytes() for path in before} == before
    assert all(path.is_file() for path in plots)
    run("--config", config_file, "--workdir", finished)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_killed_in_a_fine_tune_goes_on_and_ends_the_same(
    run, process, config_file, finished, tmp_path, capsys
):
    arguments = ("--config", config_file, "--workdir", tmp_path, "--measure", "accuracy")
    started = process("train.compare", *arguments)
    while started.poll() is None and not list(tmp_path.glob("runs/1-*/1/checkpoints/5")):
        time.sleep(0.002)
    started.kill()
    started.communicate()
    assert accuracies(tmp_path) == accuracies(finished)[:2]
    run(*arguments)
    assert "going on from step" in capsys.readouterr().err
    assert accuracies(tmp_path) == accuracies(finished)
    assert fine_tunes(tmp_path) == fine_tunes(finished)
    assert not list(tmp_path.glob("runs/*/*/checkpoints"))


def test_zero_shot_is_measured_again_only_where_chance_selects(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_run, "train", lambda *_: {"accuracy": 0.5, "top5": 0.9})
    monkeypatch.setattr(Job, "measure", lambda *_: {"accuracy": 0.5, "top5": 0.9})
    comparison = load_config(str(config_file), Comparison)
    dense, half = comparison.entries
    chance = dataclasses.replace(half, prune=PruneConfig((1,), 0.5, importance="random"))
    for entry, again in ((half, None), (chance, 0.5)):
        assert entry.prune is not None
        workdir = tmp_path / entry.prune.importance
        entries = dataclasses.replace(comparison, entries=(dense, entry), measure=("accuracy",))
        compare_run.compare(entries, workdir, "command")
        lines = [("dense", 0, 0.5, None), ("half", 0, 0.5, 0.5), ("half", 1, again, 0.5)]
        assert accuracies(workdir) == lines


def test_speed_alone_needs_neither_weights_nor_photos(run, tmp_path, monkeypatch):
    speeds = [[100.0, 125.0]]  # Asked for once: the models take turns.
    monkeypatch.setattr(compare_run, "images_per_second", lambda *_, **__: speeds.pop())
    monkeypatch.setattr(compare_run, "peak_memory", lambda *_, **__: 7_000_000)
    path = tmp_path / "speed.py"
    given = {"weights": None, "sizes": SIZES, "measure": ("speed",)}
    path.write_text(COMPARISON.format(data_dir="/nowhere", **given))
    run("--config", path, "--workdir", tmp_path / "run")
    text = (tmp_path / "run" / "results.md").read_text()
    assert "Accuracy: not measured." in text and "zero-shot" not in text
    assert "| 125.0 | 16 | 1.25x |" in text
    assert not (tmp_path / "run" / "runs").exists()


def test_configs_can_be_read():
    files = sorted(ROOT.glob("configs/compare_*.py"))
    assert files
    for file in files:
        assert load_config(str(file), Comparison).entries


def test_refused_in_one_line(run, config_file, finished, tmp_path, capsys):
    text, good = config_file.read_text(), ("--config", config_file, "--workdir", tmp_path / "run")

    def changed(old, new):
        assert old in text
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text.replace(old, new))
        return "--config", path, "--workdir", tmp_path / "run"

    cases = {
        "must define `comparison = Comparison(...)`, from train.compare.config": changed(
            "comparison = ", "config = "
        ),
        "tiny has 0 entries without prune": changed("None, ", "PruneConfig((2,), 0.5), "),
        'two entries "tiny, half, 0.5 after 1"': changed(
            "    ),\n    measure",
            "    ) + (Entry('tiny', 'half', PruneConfig((1,), 0.5)),),\n    measure",
        ),
        'The entry "big, half, 0.5 after 1" is of no model; choose one of tiny': changed(
            '"tiny", "half"', '"big", "half"'
        ),
        "tiny has no weights": changed("weights=", "img_size=32, dtype="),
        "seeds is (1, 1)": (*good, "--seeds", "1", "1"),
        "eval_batch_size is 0": (*good, "--eval-batch-size", "0"),
        "optim.lr is -1": (*good, "--optim.lr", "-1"),
        "holds a run of another config": (
            *("--config", config_file, "--workdir", finished, "--seeds", "3"),
        ),
        "There is no file nowhere.csv": ("--table", "nowhere.csv"),
        "is not a CSV of train.compare: its columns are not backbone": ("--table", config_file),
    }
    for sentence, case in cases.items():
        with pytest.raises(SystemExit) as stop:
            run(*case)
        err = capsys.readouterr().err
        assert stop.value.code == 2, (sentence, err)
        assert err.startswith("error: ") and err.count("\n") == 1, (sentence, err)
        assert sentence in err
