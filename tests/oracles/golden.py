"""Reads the golden fixtures (numbers of the official PyTorch code, see tests/golden/recipe.py).

Those of ViT are timm's, made by tests/golden/make_vit.py.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.golden import recipe
from tests.oracles.compare import assert_close

FOLDER = Path(__file__).parent.parent / "golden"


class Case(NamedTuple):
    family: str  # vim | plainmamba | vit
    config: dict
    num_params: int
    state: dict  # official name -> float32 array, PyTorch layout
    images: np.ndarray  # NHWC
    tokens: list  # sampled token indices
    want: dict


def tolerances() -> dict:
    return json.loads((FOLDER / "index.json").read_text())["tolerance"]


def case_names() -> list[str]:
    return [case["case"] for case in json.loads((FOLDER / "index.json").read_text())["cases"]]


def arrays(name: str) -> dict:
    """All of `<name>.npz`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def manifest(name: str) -> dict:
    """Names and shapes of a published checkpoint."""
    return json.loads((FOLDER / "manifests" / f"{name}.json").read_text())


def manifest_names() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "manifests").glob("*.json"))


def manifest_parameters() -> list:
    """`manifest_names` for a test, the models of many weights for the slow ones."""
    large = ("base", "large", "_l2", "_l3")
    return [
        pytest.param(name, marks=pytest.mark.slow if any(n in name for n in large) else ())
        for name in manifest_names()
    ]


def load(name: str) -> Case:
    case = json.loads((FOLDER / f"{name}.json").read_text())
    state = recipe.state_dict(case["seed"], case["manifest"])
    images = recipe.images(case["seed"], case["input"]["shape"])
    for entry, checksum in [(state[m[0]], m[3]) for m in case["manifest"]]:
        assert recipe.crc(entry) == checksum, "the random stream of numpy differs"
    assert recipe.crc(images) == case["input"]["crc32"]
    return Case(
        case["family"],
        case["config"],
        case["num_params"],
        state,
        images,
        case["sampled_tokens"],
        arrays(name),
    )


def check(case: Case, logits, features, hidden, residual, dtype, tolerance):
    """`hidden`: each mixer's output. `residual`: what Vim normalised, the others' block output."""
    layers = ("layer", "resid") if case.family == "vim" else ("mixer", "layer")
    # Layers first, so that a failure names the first that differs.
    for i, of_layer in enumerate(zip(hidden, residual, strict=True)):
        for name, got in zip(layers, of_layer, strict=True):
            sample, stats = case.want[f"{name}_sample"][i], case.want[f"{name}_stats"][i]
            got, what = np.asarray(got), f"{name} {i}"
            assert_close(got[:, case.tokens, :8], sample, tolerance["layers"], what)
            assert_close([got.mean(), got.std()], stats, tolerance["layers"], f"{what} statistics")
    suffix = "_f64" if dtype == "float64" else ""
    assert_close(features, case.want[f"feat{suffix}"], tolerance["feat"], "features")
    assert_close(logits, case.want[f"logits{suffix}"], tolerance["logits"], "logits")


def scan_cases() -> dict:
    return json.loads((FOLDER / "scan" / "index.json").read_text())["cases"]


def load_scan(name: str) -> tuple[dict, dict, dict]:
    """(inputs, outputs, gradients) of a scan case, tokens before channels: [B, K, E]."""
    case = scan_cases()[name]
    raw = arrays(f"scan/{case['npz'].removesuffix('.npz')}")

    def tokens_first(key):
        of_tokens = {"u", "delta", "z", "B", "C", "dout", "out"}
        return raw[key].swapaxes(1, 2) if key.removeprefix("grad_") in of_tokens else raw[key]

    inputs = {key: tokens_first(key) for key in case["inputs"]}
    inputs["delta_softplus"] = case["delta_softplus"]
    outputs = {key: tokens_first(key) for key in ("out", "last_state")}
    grads = {key.removeprefix("grad_"): tokens_first(key) for key in raw if key[:5] == "grad_"}
    return inputs, outputs, grads


def vim_state(seed, embed_dim, d_state, depth, tokens, classes, patch_size) -> dict:
    """Weights by the recipe for any small Vim; `tokens` counts the class token."""
    inner, rank = 2 * embed_dim, -(-embed_dim // 16)
    shapes = {
        "cls_token": (1, 1, embed_dim),
        "pos_embed": (1, tokens, embed_dim),
        "patch_embed.proj.weight": (embed_dim, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (embed_dim,),
        "head.weight": (classes, embed_dim),
        "head.bias": (classes,),
        "norm_f.weight": (embed_dim,),
    }
    for i in range(depth):
        mixer = f"layers.{i}.mixer."
        shapes[f"layers.{i}.norm.weight"] = (embed_dim,)
        shapes[f"{mixer}in_proj.weight"] = (2 * inner, embed_dim)
        shapes[f"{mixer}out_proj.weight"] = (embed_dim, inner)
        for suffix in ("", "_b"):
            shapes |= {
                f"{mixer}A{suffix}_log": (inner, d_state),
                f"{mixer}D{suffix}": (inner,),
                f"{mixer}conv1d{suffix}.weight": (inner, 1, 4),
                f"{mixer}conv1d{suffix}.bias": (inner,),
                f"{mixer}x_proj{suffix}.weight": (rank + 2 * d_state, inner),
                f"{mixer}dt_proj{suffix}.weight": (inner, rank),
                f"{mixer}dt_proj{suffix}.bias": (inner,),
            }
    return recipe.state_dict(seed, list(shapes.items()))


def _batch_norm(name, channels) -> dict:
    parameters = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.{parameter}": (channels,) for parameter in parameters}
    return shapes | {f"{name}.num_batches_tracked": ()}


def plain_mamba_state(
    seed,
    embed_dim,
    d_state,
    depth,
    tokens,
    classes,
    patch_size,
    stem_convs=1,
    conv_size=7,
    dwconv_blocks=(0,),
) -> dict:
    """Weights by the recipe for any small PlainMamba; `dwconv_blocks` count from 0."""
    inner, rank, backbone = 2 * embed_dim, -(-embed_dim // 16), "backbone."
    stem = f"{backbone}patch_embed."
    shapes = {
        f"{backbone}pos_embed": (1, tokens, embed_dim),
        f"{stem}stem.0.weight": (64, 3, 7, 7),
        **_batch_norm(f"{stem}stem.1", 64),
        f"{stem}projection.weight": (embed_dim, 64, patch_size // 2, patch_size // 2),
        f"{stem}projection.bias": (embed_dim,),
        f"{backbone}ln1.weight": (embed_dim,),
        f"{backbone}ln1.bias": (embed_dim,),
        "head.fc.weight": (classes, embed_dim),
        "head.fc.bias": (classes,),
    }
    for i in range(stem_convs):
        shapes[f"{stem}convs.{3 * i}.weight"] = (64, 64, 3, 3)
        shapes |= _batch_norm(f"{stem}convs.{3 * i + 1}", 64)
    for i in range(depth):
        layer = f"{backbone}layers.{i}."
        mixer = f"{layer}mamba."
        shapes |= {
            f"{layer}norm.weight": (embed_dim,),
            f"{layer}norm.bias": (embed_dim,),
            f"{mixer}A_log": (inner, d_state),
            f"{mixer}D": (inner,),
            f"{mixer}direction_Bs": (5, d_state),
            f"{mixer}in_proj.weight": (2 * inner, embed_dim),
            f"{mixer}in_proj.bias": (2 * inner,),
            f"{mixer}conv2d.weight": (inner, 1, conv_size, conv_size),
            f"{mixer}conv2d.bias": (inner,),
            f"{mixer}x_proj.weight": (rank + 2 * d_state, inner),
            f"{mixer}dt_proj.weight": (inner, rank),
            f"{mixer}dt_proj.bias": (inner,),
            f"{mixer}out_proj.weight": (embed_dim, inner),
            f"{mixer}out_proj.bias": (embed_dim,),
        }
        if i in dwconv_blocks:
            shapes[f"{layer}dw.0.weight"] = (embed_dim, 1, 3, 3)
            shapes |= _batch_norm(f"{layer}dw.1", embed_dim)
    return recipe.state_dict(seed, list(shapes.items()))


def vit_state(seed, embed_dim, depth, tokens, classes, patch_size, mlp_ratio=4) -> dict:
    """Weights by the recipe for any small ViT; `tokens` counts the class token."""
    shapes = {
        "cls_token": (1, 1, embed_dim),
        "pos_embed": (1, tokens, embed_dim),
        "patch_embed.proj.weight": (embed_dim, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (embed_dim,),
        "norm.weight": (embed_dim,),
        "norm.bias": (embed_dim,),
        "head.weight": (classes, embed_dim),
        "head.bias": (classes,),
    }
    linears = {
        "attn.qkv": (3 * embed_dim, embed_dim),
        "attn.proj": (embed_dim, embed_dim),
        "mlp.fc1": (mlp_ratio * embed_dim, embed_dim),
        "mlp.fc2": (embed_dim, mlp_ratio * embed_dim),
    }
    for i in range(depth):
        for name, shape in (*linears.items(), ("norm1", (embed_dim,)), ("norm2", (embed_dim,))):
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    return recipe.state_dict(seed, list(shapes.items()))
