"""Schedules, weight decay and configs of the dense tasks against the official recipes."""

import dataclasses
import json
import sys
import zlib

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from ssmjax import command_line
from ssmjax.convert.load import shapes_of, table
from ssmjax.dense import registry
from ssmjax.dense.config import PAPER, PRESETS
from tests.train.conftest import ROOT
from train import finetune
from train.cli import load_config
from train.config import Config
from train.data.dense.config import DetectionData, SegmentationData
from train.engine import optim
from train.tasks.dense import DenseTask
from train.tasks.task import open_task

GROUPS = json.loads((ROOT / "tests/golden/downstream/optimizer_groups.json").read_text())
CONFIGS = sorted(
    path for pattern in ("coco_*.py", "ade20k_*.py") for path in (ROOT / "configs").glob(pattern)
)


def config_of(name):
    data = "ade20k" if name.startswith("upernet") else "coco"
    return load_config(str(ROOT / "configs" / f"{data}_{name}_dense.py"), Config)


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith("l1") else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(GROUPS)
    ],
)
def test_optimizer_groups(name):
    """Of every official parameter, by its name through the conversion table."""
    group, config = GROUPS[name], config_of(name)
    preset = PRESETS[name.replace("_", "_plainmamba_")]
    params = nnx.state(nnx.eval_shape(lambda: registry.build(preset)), nnx.Param)
    task = open_task(config)
    assert isinstance(task, DenseTask)
    mask = nnx.to_flat_state(task.decayed(params))
    decays = {".".join(map(str, path)): leaf.get_value() for path, leaf in mask}
    theirs = {e.theirs: decays[e.ours] for e in table(preset) if e.ours in decays}
    plain = sorted(theirs_name for theirs_name, decayed in theirs.items() if not decayed)
    assert (len(plain), len(theirs) - len(plain)) == (group["num_no_decay"], group["num_decay"])
    names = "\n".join(plain).encode()
    assert zlib.crc32(names) == group["crc32_of_sorted_no_decay_names_joined_by_newline"]
    chosen = config.optim
    assert [chosen.lr] == group["lr"] and chosen.weight_decay == max(group["weight_decay"])
    assert chosen.b2 == group["betas"][1]
    assert chosen.clip == (group["grad_clip"] or {"max_norm": None})["max_norm"]


@pytest.mark.parametrize(
    ("name", "key", "steps_per_epoch"),
    [("maskrcnn_l1", "coco", 7330), ("upernet_l1", "ade", 1264)],
)
def test_learning_rates(units, name, key, steps_per_epoch):
    rate = optim.schedule(config_of(name).optim, steps_per_epoch)
    steps = units[f"lr.{key}_iter"]
    got = np.array([rate(s) for s in steps])
    chex.assert_trees_all_close(got, units[f"lr.{key}"], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("blocks", [False, True], ids=["released", "meant"])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_vim(size, blocks):
    """What is no vector decays. The released rule slows the embedding; the one it means, blocks.

    Of 24 blocks, the official rule has 26 layers: 0 of `backbone.pos_embed` and those that begin
    with `backbone.patch_embed`, i + 1 of `backbone.blocks.i`, which Vim calls `layers.i`, and 25 of
    all others; each at `layer_decay` to the power of 25 minus its layer.
    """
    config = config_of(f"upernet_vim_{size}")
    numbers = {"tiny": (2e-4, 0.1, 0.92), "small": (1e-4, 0.05, 0.95)}[size]
    chosen = config.optim
    assert (chosen.lr, chosen.weight_decay, chosen.layer_decay) == numbers
    assert not chosen.layer_decay_blocks
    assert (chosen.steps, chosen.batch_size, chosen.b2, chosen.clip) == (60_000, 32, 0.999, None)
    assert isinstance(config.data, SegmentationData)
    assert (config.data.window, config.data.stride) == ((512, 512), (341, 341))
    rate = optim.schedule(chosen, 632)
    wanted = [numbers[0] * 1e-6, numbers[0] * 0.5 * (1 - 750 / 60_000), numbers[0] / 2]
    chex.assert_trees_all_close([rate(s) for s in (0, 750, 30_000)], wanted, rtol=1e-4)
    model = nnx.eval_shape(lambda: registry.build(PRESETS[f"upernet_vim_{size}"]))
    params = nnx.state(model, nnx.Param)
    task = open_task(config)
    assert isinstance(task, DenseTask)
    masks = task.decayed(params), optim.layer_scales(params, 0.5, (), blocks=blocks)
    decays, scales = (
        {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(mask)}
        for mask in masks
    )
    entries = table(model.config)
    shapes = shapes_of(model, entries)
    for entry in entries:
        if entry.ours in decays:
            vector = len(shapes[entry.theirs]) == 1 or entry.theirs.endswith(".bias")
            assert decays[entry.ours] == (not vector), entry.theirs
            scale = scales[entry.ours]
            if blocks and entry.block is not None:
                scale = scale[entry.block]
            name = entry.theirs.replace("layers", "blocks") if blocks else entry.theirs
            layer = 25
            if name == "backbone.pos_embed" or name.startswith("backbone.patch_embed"):
                layer = 0
            elif name.startswith("backbone.blocks"):
                layer = int(name.split(".")[2]) + 1
            chex.assert_trees_all_close(scale, 0.5 ** (25 - layer), rtol=1e-7)


@pytest.mark.parametrize("name", [pytest.param("retinanet", marks=pytest.mark.slow), "upernet"])
def test_lower_layers_learn_slower_where_that_is_asked_for(name):
    """The first step of AdamW is as large as the rate: of the convolution after a block too."""
    config, heads = config_of(f"{name}_l1"), {} if name == "upernet" else {"heads": 2}
    chosen = dataclasses.replace(config.optim, layer_decay=0.5, weight_decay=0.0, clip=None)
    sizes = {"depth": 3, "embed_dim": 16, "d_state": 2, "ends": (1, 3), "width": 16}
    preset = f"{name}_plainmamba_l1"
    model = nnx.eval_shape(lambda: registry.create_model(preset, **sizes, **heads))
    task = open_task(dataclasses.replace(config, optim=chosen))
    params = jax.tree.map(lambda a: np.zeros(a.shape), nnx.state(model, nnx.Param))
    optimizer = task.optimizer(model, optax.constant_schedule(1.0))
    ones = jax.tree.map(np.ones_like, params)
    updates, _ = jax.jit(lambda grads: optimizer.update(grads, optimizer.init(params), params))(
        ones
    )
    moved = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(updates)}
    (after,) = model.backbone.trunk.breaks
    for part, behind in (("patch_embed", 4), ("dwconvs.0", 4 - after), ("head.classes", 0)):
        of = [leaf.get_value() for key, leaf in moved.items() if f"{part}." in key]
        assert of, part
        want = [np.full_like(a, -(0.5**behind)) for a in of]
        chex.assert_trees_all_close(of, want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_numbers_of_the_recipes(path):
    """Images a step, GPU by GPU as officially; steps between evaluations within half an epoch."""
    config = load_config(str(path), Config)
    of_vim, segments = "vim" in path.stem, path.stem.startswith("ade20k")
    chosen, batch = config.optim, 4 * 8 if of_vim else 8 * 2
    assert (chosen.batch_size, chosen.accumulate, chosen.ema) == (batch, 1, None)
    assert config.model.dtype is None  # Float32.
    if segments:
        steps, official = -(-20_210 // batch), 1000 if of_vim else 8000
        assert abs(config.evaluate_every * steps - official) <= steps / 2
    else:
        assert isinstance(config.data, DetectionData)
        assert config.evaluate_every == 1 and config.data.own_shapes
        assert config.data.shapes == ((800, 1344), (1344, 800))


def test_there_is_a_config_for_every_row():
    kinds = ("coco_maskrcnn", "coco_retinanet", "ade20k_upernet")
    ways = ("dense", "evit", "prune")
    names = {f"{kind}_l{size}_{way}" for kind in kinds for size in (1, 2, 3) for way in ways}
    names |= {f"ade20k_upernet_vim_{size}_dense" for size in ("tiny", "small")}
    assert {path.stem for path in CONFIGS} == names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs(path):
    config = load_config(str(path), Config)
    _, kind, *trunk, way = path.stem.split("_")
    name = "_".join([kind, *trunk] if len(trunk) == 2 else [f"{kind}_plainmamba", *trunk])
    assert config.model.name == name
    alignment = {"dense": None, "evit": "none", "prune": "previous"}[way]
    assert getattr(config.prune, "alignment", None) == alignment
    assert config.prune is None or config.prune.after_blocks == PAPER[name].after_blocks
    assert f"configs/{path.name}" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "coco_retinanet_l1_prune",
            ("4200 > 3360 > 2688", "[16, 800, 1344, 3]", "weights/plain"),
        ),
        ("ade20k_upernet_l1_evit", ("4096 > 3277 > 2622", "logits [16, 512, 512, 150]")),
    ],
)
def test_dry_run(name, said, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    arguments = ("--config", ROOT / "configs" / f"{name}.py", "--workdir", workdir, "--dry-run")
    arguments = map(str, (*arguments, "--data.path", tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["train.finetune", *arguments])
    command_line.run(finetune.main)
    out = capsys.readouterr().out
    _, kind, size, _ = name.split("_")
    manifest = ROOT / f"tests/golden/downstream/manifest_{kind}_{size}.json"
    parameters = f"{json.loads(manifest.read_text())['num_params']:,} parameters"
    for part in (
        parameters,
        *said,
        "in the backbone",
        "missing:   There is no data set in",
        "memory:",
    ):
        assert part in out
    assert not workdir.exists()
