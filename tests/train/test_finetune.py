"""The job as a user runs it: results, resuming after a kill, and every bad input as one line."""

import csv
import json
import shutil
import sys

import chex
import numpy as np
import pytest
from PIL import Image

from ssmjax import command_line
from ssmjax.preprocess import Preprocessing
from ssmjax.run_weights import weight_file
from tests.train.conftest import losses
from train.data.cifar10 import CLASS_NAMES
from train.finetune import main


def test_results(pruned):
    rows = json.loads((pruned / "results.json").read_text())
    regimes = [row["regime"] for row in rows]
    assert regimes == [
        *("dense", "zero-shot", "zero-shot", "zero-shot", "zero-shot"),
        *("fine-tuned, raw, best epoch", "fine-tuned, raw", "fine-tuned, best epoch", "fine-tuned"),
    ]
    assert [row["tokens"] for row in rows] == ["16"] + ["16>8"] * 8
    assert all(0 <= row["accuracy"] <= 1 and row["images_per_second"] > 0 for row in rows)
    assert rows[-1]["flops"] < rows[0]["flops"]
    with (pruned / "results.csv").open() as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [
            row["accuracy"] for row in rows
        ]
    with Image.open(pruned / "kept_tokens.png") as picture:
        assert picture.size[0] > 2 * 100 and np.asarray(picture).std() > 0
    assert (pruned / "curve.png").is_file()


def test_log_covers_every_step_asked_for(dense, pruned):
    for workdir in (dense, pruned):
        assert sorted(losses(workdir)) == list(range(2, 21, 2))


def test_evaluate_agrees(command, config_file, pruned, tmp_path, monkeypatch):
    """With one program for all of its batches."""
    chex.clear_trace_counter()
    once = chex.assert_max_traces(Preprocessing.normalise, n=1)
    monkeypatch.setattr(Preprocessing, "normalise", once)
    given = ("--config", config_file, "--checkpoint", pruned, "--confusion", tmp_path / "who.csv")
    code, out, err = command("train.evaluate", *given)
    assert code == 0, err
    with (tmp_path / "who.csv").open() as file:
        header, *rows = csv.reader(file)
    counts = np.array([row[1:] for row in rows], int)
    assert header[1:] == [row[0] for row in rows] == list(CLASS_NAMES)
    chex.assert_trees_all_equal(counts.sum(axis=1), 2)
    assert out.startswith(f"top-1 {100 * np.trace(counts) / 20:.2f}%") and "20 photos" in out
    accuracy = json.loads((pruned / "results.json").read_text())[-1]["accuracy"]
    assert out.startswith(f"top-1 {100 * accuracy:.2f}%")


def test_raw_and_averaged_parameters_are_both_measured(pruned, dense):
    for workdir in (pruned, dense):
        entries = [json.loads(x) for x in (workdir / "log.jsonl").read_text().splitlines()]
        measured = [entry for entry in entries if "accuracy" in entry]
        assert [entry["step"] for entry in measured] == [5, 10, 15, 20]
        rows = json.loads((workdir / "results.json").read_text())
        by_regime = {
            row["regime"].removeprefix("fine-tuned").lstrip(", "): row for row in rows[-4:]
        }
        names = ("raw, best epoch", "raw", "best epoch", "")
        if workdir == dense:
            names = tuple(f"dense, {name}".rstrip(", ") for name in names)
        keys = ("raw_accuracy", "raw_accuracy", "accuracy", "accuracy")
        for name, key in zip(names, keys, strict=True):
            values = [entry[key] for entry in measured]
            wanted = max(values) if "best" in name else values[-1]
            assert by_regime[name]["accuracy"] == wanted, name
        with (workdir / "log.csv").open() as file:
            raw = [row["raw_top5"] for row in csv.DictReader(file) if row["raw_top5"]]
        assert list(map(float, raw)) == [entry["raw_top5"] for entry in measured]


def test_evaluate_of_a_run_that_has_not_ended(command, config_file, pruned, tmp_path):
    workdir = tmp_path / "stopped"
    workdir.mkdir()
    shutil.copy(pruned / "best.safetensors", workdir)
    given = ("train.evaluate", "--config", config_file, "--checkpoint", workdir)
    code, out, err = command(*given)
    assert code == 0 and out.startswith("top-1 "), err
    said = f"taking {workdir}/best.safetensors, of the best epoch so far"
    assert said in err and "\r" not in err and "\x1b" not in err
    entries = [json.loads(x) for x in (pruned / "log.jsonl").read_text().splitlines()]
    best = max(entry["accuracy"] for entry in entries if "accuracy" in entry)
    assert out.startswith(f"top-1 {100 * best:.2f}%")


def test_weights_in_a_folder(tmp_path):
    told = []
    with pytest.raises(ValueError, match="has no weights.safetensors; give a weight file, or the"):
        weight_file(tmp_path, told.append)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="stopped before its first evaluation, .* --resume auto"):
        weight_file(tmp_path, told.append)
    for name in ("best.safetensors", "weights.safetensors"):
        (tmp_path / name).touch()
        assert weight_file(tmp_path, told.append) == tmp_path / name
        assert told.pop().startswith(f"taking {tmp_path / name}") and not told
    for path in (tmp_path / "other.safetensors", tmp_path / "weights.safetensors"):
        assert weight_file(path, told.append) == path and not told


def test_bad_input_is_one_line(
    command, config_file, dense_config_file, dense, tmp_path, monkeypatch, capsys
):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((dense / "weights.safetensors").read_bytes()[:-100])
    not_config = tmp_path / "no_config.py"
    not_config.write_text("config = 3\n")
    plain_file = tmp_path / "file"
    plain_file.write_text("")
    run = ("--workdir", tmp_path / "run")
    good = ("--config", config_file, *run)
    cases = {
        "no config file nowhere.py; those in configs/: configs/ade20k_upernet": (
            "--config",
            "nowhere.py",
            *run,
        ),
        "must define `config = Config(...)`": (
            "--config",
            not_config,
            "--workdir",
            tmp_path / "run",
        ),
        "--config is missing": run,
        "--optim.learning-rate": (*good, "--optim.learning-rate", "1"),
        "Did you mean vim_tiny_patch16_224?": (*good, "--model.name", "vim_tiny_patch16_225"),
        "both sides must be at least 4": (*good, "--model.img-size", "3"),
        "keep_ratio is 1.5": (*good, "--prune.keep-ratio", "1.5"),
        "the model has 2 blocks": (*good, "--prune.after-blocks", "1", "3"),
        "it may be cut short": (*good, "--model.weights", broken),
        "optim.lr is -1": (*good, "--optim.lr", "-1"),
        "choose a folder of yours": ("--config", config_file, "--workdir", plain_file / "run"),
        "there is no data set": (*good, "--data.name", "cifar_eleven"),
        "already holds a run": ("--config", dense_config_file, "--workdir", dense),
        "holds a run of another config": (
            "--config",
            config_file,
            "--workdir",
            dense,
            "--resume",
            "auto",
            "--seed",
            "7",
        ),
    }
    for sentence, case in cases.items():
        monkeypatch.setattr(sys, "argv", ["train.finetune", *map(str, case)])
        with pytest.raises(SystemExit) as stop:
            command_line.run(main)
        err = capsys.readouterr().err
        assert stop.value.code == 2, (sentence, err)
        assert err.startswith("error: ") and err.count("\n") == 1, (sentence, err)
        assert sentence.lower() in err.lower()


def test_no_traceback_from_the_shell(process):
    started = process("train.finetune", "--config", "nowhere.py", "--workdir", "nowhere")
    _, err = started.communicate(timeout=600)
    assert started.returncode == 2
    assert err.startswith("error: There is no config file nowhere.py")
    assert "Traceback" not in err
