"""Make the files of this folder, at the commit that README.md names: see there."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import ssmjax
from ssmjax import PruneConfig, imagenet
from ssmjax.dense import registry
from ssmjax.dense.ranges import DensePruneConfig
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, save_weights
from tests.train.conftest import SmallPhotos
from train.cli import load_config
from train.compare.config import Comparison
from train.config import Config

HERE = Path(__file__).parent
CLASSIFIER, DENSE = "vim_tiny_patch16_224", "upernet_vim_tiny"
RESULTS = ("results.csv", "results.json", "results.md")
IMAGES = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)


def weights():
    """Two weight files, and what the models in them answer to `IMAGES`."""
    prune = PruneConfig(after_blocks=(1,), keep_ratio=0.5)
    sizes = {"depth": 2, "embed_dim": 16, "d_state": 2, "patch_size": 8, "img_size": 32}
    classifier = ssmjax.create_model(CLASSIFIER, seed=1, num_classes=3, prune=prune, **sizes)
    names, photos = ("ant", "bee", "cup"), imagenet.photos(CLASSIFIER)
    overrides = config_overrides(CLASSIFIER, classifier.config)
    path = HERE / "classifier.safetensors"
    save_weights(path, classifier, Metadata(CLASSIFIER, overrides, names, *photos))

    sizes = {"depth": 4, "embed_dim": 8, "d_state": 2, "ends": (1, 2, 3, 4), "img_size": 32}
    dense = registry.create_model(
        DENSE,
        seed=1,
        num_classes=3,
        prune=DensePruneConfig((1,), 0.5, conv="aligned"),
        width=4,
        auxiliary_width=4,
        **sizes,
    )
    overrides = registry.config_overrides(DENSE, dense.config)
    path = HERE / "dense.safetensors"
    save_weights(path, dense, Metadata(DENSE, overrides, names, *imagenet.photos(DENSE)))
    answers = {"classifier": np.asarray(classifier(IMAGES)), "dense": np.asarray(dense(IMAGES))}
    np.savez(HERE / "answers.npz", **answers)


def run():
    """The workdir of a run of two steps."""
    with tempfile.TemporaryDirectory() as folder:
        data, workdir = Path(folder, "data"), Path(folder, "run")
        SmallPhotos(data_dir=data, file_format="array_record").download_and_prepare()
        command = [sys.executable, "-m", "train.finetune", "--config", HERE / "run.py"]
        subprocess.run([*command, "--workdir", workdir, "--data.data-dir", data], check=True)
        for name in (*RESULTS, "best.safetensors", "curve.png", "kept_tokens.png"):
            (workdir / name).unlink()
        shutil.rmtree(workdir / "tensorboard")
        shutil.move(workdir, HERE / "run")


def values():
    """What the configs in `configs` come to, but for the machine's own folder of data sets."""
    found = {}
    for path in sorted((HERE / "configs").glob("*.py")):
        kind = Comparison if path.name.startswith("compare") else Config
        found[path.name] = dataclasses.asdict(load_config(str(path), kind))
        found[path.name]["data"].pop("data_dir", None)
    (HERE / "configs.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    weights()
    values()
    run()
