"""The estimate of a step's memory against what XLA allocates, and the table of all recipes."""

import dataclasses
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from kernels import capability
from tests.train.conftest import ROOT
from train import finetune, memory_table
from train.cli import load_config
from train.config import Config, ModelConfig, OptimConfig
from train.engine.learner import check_parts, learner_of
from train.hosts.options import RunOptions, TargetOptions
from train.reports.dry_run import warning
from train.reports.memory import GIB, Devices, Estimate, devices_of, estimate
from train.tasks.task import open_task

RECIPES = sorted(
    path
    for kind in ("imagenet", "coco", "ade20k", "composites", "trees")
    for path in (ROOT / "configs").glob(f"{kind}_*.py")
)
ONE = Devices(1, "cpu", 2**30, cuda=False)
SIZES = {"depth": 4, "embed_dim": 64, "d_state": 8, "img_size": 64}
MODELS = {
    "vim": ModelConfig("vim_tiny_patch16_224", patch_size=8, **SIZES),
    "plain_mamba": ModelConfig("plainmamba_l1", **SIZES),
}


def shapes_of(config):
    task = open_task(config)
    return task, nnx.eval_shape(lambda: task.create(10, None))


def needed(devices=ONE, *, fsdp=False, model="vim", **optim):
    config = Config(model=MODELS[model], optim=OptimConfig(batch_size=32, **optim))
    return estimate(*shapes_of(config), devices, fsdp=fsdp)


def allocated(config):
    """Bytes that XLA's program for loss and gradients takes beside its arguments and results."""
    task, model = shapes_of(config)
    graphdef, params, others = nnx.split(model, nnx.Param, ...)
    loss = learner_of(task, model).loss

    def value(params, others, batch, key):
        model = nnx.merge(graphdef, params, others, copy=True)
        parts = jax.tree.leaves(loss(model, loss.prepare(batch, key), key))
        return sum(part for part in parts if jnp.issubdtype(part.dtype, jnp.floating))

    key = jax.eval_shape(lambda: jax.random.key(0))
    program = jax.jit(jax.value_and_grad(value)).lower(params, others, task.step_batch(model), key)
    sizes = program.compile().memory_analysis()
    assert sizes is not None
    return sizes.temp_size_in_bytes


@pytest.mark.parametrize(
    ("model", "remat"),
    [
        ("vim", True),
        pytest.param("plain_mamba", False, marks=pytest.mark.slow),
        pytest.param("vim", False, marks=pytest.mark.slow),
        pytest.param("plain_mamba", True, marks=pytest.mark.slow),
    ],
)
def test_what_is_kept_is_most_of_what_xla_allocates(model, remat):
    config = Config(model=MODELS[model], optim=OptimConfig(batch_size=32, remat=remat))
    found = needed(model=model, remat=remat)
    assert (found.recomputed > 0) == remat
    share = (found.kept + found.recomputed) / allocated(config)
    assert 0.65 < share < 1.1


def test_parts_of_the_estimate():
    """Float32 parameters: 4 bytes; AdamW holds two more of each, the average one, gradients one."""
    _, model = shapes_of(Config(model=MODELS["vim"]))
    params = sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))
    plain = needed()
    assert abs(plain.state - 4 * 5 * params) < 100  # And some counters.
    images, floats = 32 * 64 * 64 * 3, 32 * 10
    chex.assert_equal(plain.batches, 3 * (images + 32 * 4) + 4 * (images + floats))
    parts = needed(accumulate=4)
    chex.assert_equal(parts.state - plain.state, 4 * params)  # The sum of gradients.
    assert 0.2 < parts.kept / plain.kept < 0.3
    pair = needed(ONE._replace(number=2))
    assert (pair.state, 2 * pair.batches) == (plain.state, plain.batches)
    assert needed(ONE._replace(number=2), fsdp=True).state == plain.state // 2
    assert needed(remat=True).total < plain.total / 2


def test_a_teacher_is_counted():
    chosen = OptimConfig(batch_size=32, distill=0.5)
    config = Config(model=dataclasses.replace(MODELS["vim"], weights="w"), optim=chosen)
    task = open_task(config)
    bare = dataclasses.replace(config.model, weights=None)
    _, model = shapes_of(Config(model=bare))
    params = sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))
    with_teacher = estimate(task, model, ONE, fsdp=False)
    assert abs(with_teacher.state - needed().state - 4 * params) < 100


def test_the_scan_is_that_of_the_target_and_not_of_what_is_here():
    """One state in four tokens, or in eight; and looking at GPUs changes nothing here."""
    here = needed()
    gpu = needed(ONE._replace(cuda=True))
    assert gpu.kept != here.kept
    assert needed() == here
    assert not capability.has_cuda()


def test_what_is_asked_for():
    gpus = devices_of(TargetOptions(8, 80))
    assert (gpus.number, gpus.name, gpus.scan) == (8, "GPU of 80 GB", "pallas_triton")
    assert (gpus.memory, gpus.room) == (60 * 10**9, 45 * 10**9)
    assert devices_of(TargetOptions(8, 32, "reference")).scan == "reference"
    here = devices_of(TargetOptions())
    assert (here.number, here.scan) == (jax.device_count(), "reference")
    assert 2**28 < here.memory < 2**50
    for given, said in (
        ({"devices": 8}, "target.gigabytes is None; give both"),
        ({"devices": 0, "gigabytes": 80}, "target.devices is 0"),
    ):
        with pytest.raises(ValueError, match=said):
            TargetOptions(**given)
    with pytest.raises(ValueError, match="--target is for --dry-run"):
        RunOptions("a.py", "b", target=TargetOptions(8, 80))


@pytest.mark.parametrize(("gigabytes", "fits"), [(80, True), (4, False)])
def test_dry_run_names_the_memory_and_warns(gigabytes, fits, tmp_path, capsys, monkeypatch):
    config = ROOT / "configs/imagenet_vim_tiny_prune.py"
    given = ("--config", config, "--workdir", tmp_path / "run", "--dry-run")
    given = (*given, "--target.devices", 8, "--target.gigabytes", gigabytes)
    monkeypatch.setattr("sys.argv", ["train.finetune", *map(str, given)])
    finetune.main()
    out = capsys.readouterr().out
    assert f"devices:   8 x GPU of {gigabytes} GB" in out and "on each device 64" in out
    assert "with the scan pallas_triton" in out
    assert f"{0.75 * gigabytes * 1e9 / GIB:.2f} are there" in out
    warning = re.search(r"warning: .*give (.*)\.\n", out)
    assert (warning is None) == fits
    if warning:
        assert warning[1] == "--optim.remat or --optim.accumulate 2 or --fsdp"


@pytest.mark.parametrize(
    ("accumulate", "fsdp", "ways"),
    [
        (32, False, "--optim.accumulate 64 or --fsdp"),
        (64, False, "--fsdp"),
        (64, True, "more devices or a smaller model"),
    ],
)
def test_what_the_run_would_refuse_is_not_advised(accumulate, fsdp, ways):
    """Of 512 images, 64 parts leave each of 8 devices one."""
    optim = OptimConfig(batch_size=512, accumulate=accumulate, remat=True)
    gpus = devices_of(TargetOptions(8, 1))
    said = warning(Estimate(GIB, 0, 0, 0), gpus, Config(optim=optim), fsdp)
    assert said.startswith("1.00 GiB do not fit GPU of 1 GB")
    assert said.endswith(f"; give {ways}.")


def test_parts_that_devices_cannot_share_are_named():
    mesh = ONE._replace(number=8).mesh
    check_parts(OptimConfig(batch_size=64, accumulate=8), mesh)
    said = "optim.batch_size / optim.accumulate is 4; on 8 devices it must be a multiple of 8"
    with pytest.raises(ValueError, match=said):
        check_parts(OptimConfig(batch_size=64, accumulate=16), mesh)
    with pytest.raises(ValueError, match="optim.batch_size is 12; on 8 devices"):
        check_parts(OptimConfig(batch_size=12), mesh)


def test_a_gpu_too_old_for_the_kernel_is_said(monkeypatch):
    class V100:
        platform, device_kind, compute_capability = "gpu", "Tesla V100-SXM2-32GB", "7.0"

    assert capability.shortcoming() is None  # A CPU.
    monkeypatch.setattr(capability, "_default_device", V100)
    assert not capability.has_cuda()
    said = capability.shortcoming()
    for part in ("Tesla V100-SXM2-32GB has CUDA compute capability 7.0", "reference", "float32"):
        assert part in str(said)
    V100.compute_capability = "8.0"
    assert capability.has_cuda() and capability.shortcoming() is None


def readme():
    """{config: cells} of the table in train/README.md."""
    lines = (ROOT / "train/README.md").read_text().splitlines()
    start = lines.index(f"| {' | '.join(memory_table.HEADINGS)} |") + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {row[0]: row for row in cells}


def test_every_recipe_is_in_the_table_and_fits():
    table = readme()
    assert [path.stem for path in RECIPES] == sorted(table, key=[p.stem for p in RECIPES].index)
    assert len(table) == 50
    for name, row in table.items():
        assert row[-1] in (("32 GB",) if "vim" in name else ("32 GB", "80 GB")), name


FIRST = "imagenet_vim_small_prune"


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=() if p.stem == FIRST else pytest.mark.slow) for p in RECIPES],
    ids=lambda path: path.stem,
)
def test_the_table_is_what_its_command_prints(path):
    cells = memory_table.line(str(path), load_config(str(path), Config), 8)
    assert list(cells) == readme()[path.stem]
