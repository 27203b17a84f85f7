"""Reads the golden fixtures (numbers of the official PyTorch code, see tests/golden/recipe.py)."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.golden import recipe

FOLDER = Path(__file__).parent.parent / "golden"


class Case(NamedTuple):
    config: dict
    state: dict  # official name -> float32 array, PyTorch layout
    images: np.ndarray  # NHWC
    tokens: list  # sampled token indices
    want: dict


def tolerances() -> dict:
    return json.loads((FOLDER / "index.json").read_text())["tolerance"]


def load(name: str) -> Case:
    case = json.loads((FOLDER / f"{name}.json").read_text())
    state = recipe.state_dict(case["seed"], case["manifest"])
    images = recipe.images(case["seed"], case["input"]["shape"])
    for entry, checksum in [(state[m[0]], m[3]) for m in case["manifest"]]:
        assert recipe.crc(entry) == checksum, "the random stream of numpy differs"
    assert recipe.crc(images) == case["input"]["crc32"]
    with np.load(FOLDER / f"{name}.npz") as arrays:
        want = dict(arrays)
    return Case(case["config"], state, images, case["sampled_tokens"], want)


def scan_cases() -> dict:
    return json.loads((FOLDER / "scan" / "index.json").read_text())["cases"]


def load_scan(name: str) -> tuple[dict, dict, dict]:
    """(inputs, outputs, gradients) of a scan case, tokens before channels: [B, K, E]."""
    case = scan_cases()[name]
    with np.load(FOLDER / "scan" / case["npz"]) as arrays:
        raw = dict(arrays)

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
