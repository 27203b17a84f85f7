"""Exported models: run by JAX alone they give the model's logits, and bad input leaves no file."""

import functools
import os
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from jax import export

import ssmjax
from ssmjax.export import main
from ssmjax.preprocess import Preprocessing
from ssmjax.registry import config_overrides
from ssmjax.weights import Metadata, save_weights

SMALL = {"depth": 2, "patch_size": 4, "img_size": 16, "num_classes": 5}
SSM = SMALL | {"embed_dim": 16, "d_state": 2}
VIM, PLAIN, DEIT = "vim_tiny_patch16_224", "plainmamba_l1", "deit_tiny_patch16_224"
HALF = functools.partial(ssmjax.PruneConfig, (1,), 0.5)
MERGE = HALF("similarity_global", alignment="none", reduction="merge")
FUSE = HALF("attention", reduction="fuse")
MODELS = {
    "vim": (VIM, SSM, None),
    "vim_merged": (VIM, SSM, MERGE),
    "plain_aligned": (PLAIN, SSM, HALF(alignment="zero_token", conv="aligned")),
    "vit_fused": (DEIT, SMALL | {"embed_dim": 48}, FUSE),
}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

# What a process without the project does with the files.
LOAD = """
import sys
import jax, numpy as np
images = {b: np.load(f"images{b}.npy") for b in (1, 3)}
for name in sys.argv[1:]:
    exported = jax.export.deserialize(open(f"{name}.hlo", "rb").read())
    for b, array in images.items():
        np.save(f"{name}{b}.npy", exported.call(array))
assert not {"ssmjax", "kernels", "flax"} & set(sys.modules)
"""


@functools.cache
def build(name):
    registered, sizes, prune = MODELS[name]
    return ssmjax.create_model(registered, prune=prune, **sizes)


def save(folder, registered, model):
    path = folder / "weights.safetensors"
    config = config_overrides(registered, model.config)
    save_weights(path, model, Metadata(registered, config, (), Preprocessing(MEAN, STD)))
    return path


@pytest.fixture
def run(command):
    return functools.partial(command, main)


@pytest.mark.slow
def test_other_processes_get_the_models_logits(run, tmp_path):
    for name, (registered, _, _) in MODELS.items():
        weights = save(tmp_path, registered, build(name))
        status, _, err = run("--weights", weights, "--out", tmp_path / f"{name}.hlo")
        assert (status, err) == (0, "")
    images = {b: np.asarray(jax.random.normal(jax.random.key(b), (b, 16, 16, 3))) for b in (1, 3)}
    for b, array in images.items():
        np.save(tmp_path / f"images{b}.npy", array)
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", LOAD, *MODELS], cwd=tmp_path, env=bare, check=True)
    for name in MODELS:
        for b, array in images.items():
            got, want = np.load(tmp_path / f"{name}{b}.npy"), np.asarray(build(name)(array))
            chex.assert_type(got, np.float32)
            chex.assert_trees_all_close(got, want, rtol=0, atol=1e-6 * np.abs(want).max())


def test_says_how_to_run_it(run, tmp_path):
    weights, out = save(tmp_path, VIM, build("vim")), tmp_path / "vim.hlo"
    status, printed, _ = run("--weights", weights, "--out", out, "--batch-size", 2)
    assert status == 0
    for said in (
        f"{out}: {VIM}, ",
        "cpu with the scan `reference`; cuda with the scan `associative`\n",
        f'jax.export.deserialize(open({str(out)!r}, "rb").read()).call(images)',
        "images: [2, 16, 16, 3] float32",
        "mean [0.4, 0.5, 0.6] and std [0.2, 0.25, 0.3]",
        "logits: [2, 5] float32",
    ):
        assert said in printed
    exported = export.deserialize(bytearray(out.read_bytes()))
    assert exported.platforms == ("cpu", "cuda")
    assert [aval.shape for aval in exported.in_avals] == [(2, 16, 16, 3)]
    with pytest.raises(ValueError, match="shape"):
        exported.call(np.zeros((3, 16, 16, 3), np.float32))


def test_a_fixed_batch_on_cuda_alone_runs_the_kernel(run, tmp_path):
    weights, out = save(tmp_path, VIM, build("vim_merged")), tmp_path / "vim.hlo"
    arguments = ["--weights", weights, "--out", out, "--platforms", "cuda", "--batch-size", 4]
    status, printed, err = run(*arguments)
    if status == 2:  # From JAX 0.11 on, without a GPU.
        assert "compiles the kernel for the GPU of this machine" in err
        assert not out.exists()
        return
    assert "cuda with the scan `pallas_triton`; to be loaded by JAX" in printed
    exported = export.deserialize(bytearray(out.read_bytes()))
    assert exported.platforms == ("cuda",)
    # Both directions of the block before pruning, and of the block after it.
    assert exported.mlir_module().count("selective_scan_forward") >= 1
    with pytest.raises(ValueError, match="cuda"):
        jax.jit(exported.call).trace(*exported.in_avals).lower(lowering_platforms=("cpu",))


def test_prunes_as_told(run, tmp_path):
    weights, out = save(tmp_path, VIM, build("vim")), tmp_path / "vim.hlo"
    pruned = ["--after-blocks", 1, "--keep-ratio", 0.5]
    status, _, err = run("--weights", weights, "--out", out, "--platforms", "cpu", *pruned)
    assert (status, err) == (0, "")
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    got = np.asarray(export.deserialize(bytearray(out.read_bytes())).call(images))
    dense, want = (np.asarray(m(images)) for m in (build("vim"), build("vim").with_prune(HALF())))
    chex.assert_trees_all_close(got, want, rtol=0, atol=1e-6 * np.abs(want).max())
    assert np.abs(got - dense).max() > 1e-3 * np.abs(want).max()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--platforms", "cuda", "cuda"], "give cpu, cuda or both, each once"),
        (["--platforms", "tpu"], "invalid choice"),
        (["--batch-size", "0"], "batch_size is 0; it must be at least 1"),
        (["--after-blocks", "1"], "go together"),
        (["--model", PLAIN], "holds a vim_tiny_patch16_224, not a plainmamba_l1"),
    ],
)
def test_bad_options(run, tmp_path, arguments, reason):
    weights = save(tmp_path, VIM, build("vim"))
    status, out, err = run("--weights", weights, "--out", tmp_path / "out.hlo", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and reason in err
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_chance_is_refused(run, tmp_path):
    by_chance = build("vim").with_prune(HALF("random"))
    weights = save(tmp_path, VIM, by_chance)
    status, _, err = run("--weights", weights, "--out", tmp_path / "out.hlo")
    assert status == 2 and err.count("\n") == 1
    assert 'importance="random" needs a random key at every call' in err
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_bad_files(run, tmp_path):
    weights, missing = save(tmp_path, VIM, build("vim")), tmp_path / "none.safetensors"
    for arguments, reason in (
        (["--weights", missing, "--out", tmp_path / "out.hlo"], "There is no weight file"),
        (["--weights", weights, "--out", weights], "--out is the weight file itself"),
        (["--weights", weights, "--out", tmp_path], "a folder; name a file"),
        (["--weights", weights, "--out", tmp_path / "no" / "out.hlo"], "does not exist; make it"),
        (["--out", tmp_path / "out.hlo"], "No model was given"),
    ):
        status, _, err = run(*arguments)
        assert status == 2 and err.count("\n") == 1 and reason in err
    assert os.listdir(tmp_path) == ["weights.safetensors"]
