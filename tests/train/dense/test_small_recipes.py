"""The configs for two CPU cores: their models and data fit each other, pruned and not."""

from typing import Any

import jax
import pytest
from flax import nnx

from tests.train.conftest import ROOT
from train.cli import load_config
from train.config import Config
from train.data.composites.draw import SIDE
from train.tasks.task import open_task

CONFIGS = ("composites_maskrcnn", "composites_upernet", "trees_retinanet")


def config_of(name) -> Any:
    return load_config(str(ROOT / "configs" / f"{name}.py"), Config)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name):
    dense, pruned = (config_of(f"{name}_{way}") for way in ("dense", "prune"))
    assert dense.prune is None and pruned.prune.alignment == "previous"
    assert (dense.model, dense.data, dense.optim) == (pruned.model, pruned.data, pruned.optim)
    for way in ("dense", "prune"):
        text = (ROOT / "configs" / f"{name}_{way}.py").read_text()
        assert f"configs/{name}_{way}.py" in text
        assert f"train.data.{name.split('_')[0]} --path {dense.data.path}" in text
    task: Any = open_task(pruned)
    model = nnx.eval_shape(lambda: task.create(11, None))
    tokens = (task.sides[0] // 16) * (task.sides[1] // 16)
    assert task.tokens(model) == (tokens, -(-tokens // 4))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count < 3_000_000


def test_composites_fit():
    detection, segmentation = (config_of(f"composites_{n}_dense") for n in ("maskrcnn", "upernet"))
    assert detection.data.scale == segmentation.data.crop == (SIDE, SIDE)
    assert detection.model.img_size == segmentation.model.img_size == SIDE
    assert segmentation.data.class_names[-1] == "background"
