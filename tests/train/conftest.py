"""A small prepared data set in the layout of the demo's, and a small run on it."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from ssmjax import command_line
from train.data.cifar10 import CLASS_NAMES, Cifar10Photos

ROOT = Path(__file__).parent.parent.parent

CONFIG = """
from ssmjax import PruneConfig
from train.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig

config = Config(
    model=ModelConfig(
        name="vim_tiny_patch16_224", depth=2, embed_dim=16, d_state=2, img_size=16, patch_size=4
    ),
    data=DataConfig(
        data_dir={data_dir!r}, augment=AugmentConfig(crop="shift", flip=0.5, mixup=0.8, cutmix=1.0)
    ),
    optim=OptimConfig(epochs=4, batch_size=8, ema=0.9, warmup_epochs=1, lr=1e-2),
    prune={prune},
    eval_batch_size=16,
    checkpoint_every=3,
    log_every=2,
    pictures=3,
)
"""


class SmallPhotos(Cifar10Photos, skip_registration=True):
    """The demo's builder on photos that are coloured by class, so that a few steps learn."""

    name = "cifar10_photos"

    def _split_generators(self, dl_manager):
        return {"train": self.photos(0, 40), "test": self.photos(1, 20)}

    def photos(self, seed, count):
        rng = np.random.default_rng(seed)
        for key in range(count):
            photo = rng.integers(0, 80, (32, 32, 3), np.uint8)
            photo[..., key % 3] += np.uint8(15 * (key % 10))
            png = cv2.imencode(".png", photo)[1].tobytes()
            yield key, {"image": png, "label": key % len(CLASS_NAMES)}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    SmallPhotos(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture(scope="session")
def config_file(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "small.py"
    prune = "PruneConfig(after_blocks=(1,), keep_ratio=0.5)"
    path.write_text(CONFIG.format(data_dir=str(data_dir), prune=prune))
    return path


@pytest.fixture(scope="session")
def dense_config_file(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "dense.py"
    path.write_text(CONFIG.format(data_dir=str(data_dir), prune=None))
    return path


@pytest.fixture
def optimised(monkeypatch):
    """What runs for longer than it compiles is compiled as users get it, also in new processes."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def process(tmp_path_factory):
    """Starts a command of the project as a user would; compiled programs are shared."""
    cache = tmp_path_factory.getbasetemp().parent / "compiled"
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def command():
    """Runs a command in this process, so that one run's programs serve the next.

    Gives the exit status and what was written to stdout and to stderr.
    """

    def run(module, *arguments):
        out, err, status = io.StringIO(), io.StringIO(), 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "argv", [module, *map(str, arguments)])
            patch.chdir(ROOT)
            try:
                command_line.run(importlib.import_module(module).main)
            except SystemExit as stop:
                status = stop.code
        return status, out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="session")
def dense(command, dense_config_file, tmp_path_factory):
    """A finished run from scratch, dense."""
    workdir = tmp_path_factory.mktemp("dense")
    code, _, err = command("train.finetune", "--config", dense_config_file, "--workdir", workdir)
    assert code == 0, err
    return workdir


@pytest.fixture(scope="session")
def arguments(config_file, dense):
    """Of a run that prunes and fine-tunes the dense model."""
    return (
        "train.finetune",
        "--config",
        config_file,
        "--model.weights",
        dense / "weights.safetensors",
    )


@pytest.fixture(scope="session")
def pruned(command, arguments, tmp_path_factory):
    """A finished run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("pruned")
    code, _, err = command(*arguments, "--workdir", workdir)
    assert code == 0, err
    return workdir


def losses(workdir):
    """{step: loss} of a run."""
    lines = (workdir / "log.jsonl").read_text().splitlines()
    return {e["step"]: e["loss"] for e in map(json.loads, lines) if "loss" in e}
