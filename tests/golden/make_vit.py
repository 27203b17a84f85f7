"""Makes the ViT cases and the DeiT manifests here, with the official code: timm 1.0.31.

DeiT's own model files only call timm. timm asks for torchvision, which its ViT never uses, so it is
installed alone and empty modules stand in:

    pip install --no-deps --target FOLDER timm==1.0.31
    PYTHONPATH=FOLDER:. python -m tests.golden.make_vit

Prints the lines for index.json. Made with torch 2.13.0 on a CPU.
"""
import importlib.abc
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tests.golden import recipe

FOLDER = Path(__file__).parent
VERSION = "1.0.31"
# Case: (timm's name, its options, seed, images).
CASES = {
    "vit_micro": (
        None,
        {"img_size": (32, 40), "patch_size": 8, "depth": 4, "embed_dim": 48, "num_heads": 3,
         "mlp_ratio": 3, "num_classes": 10},
        3,
        (3, 32, 40, 3),
    ),
    "deit_tiny": ("deit_tiny_patch16_224", {}, 1, (2, 224, 224, 3)),
}
PUBLISHED = {
    "deit_tiny_patch16_224": "deit_tiny_patch16_224-a1311bcf.pth",
    "deit_small_patch16_224": "deit_small_patch16_224-cd65a155.pth",
    "deit_base_patch16_224": "deit_base_patch16_224-b5f2ef4d.pth",
}
WHAT = {
    "logits": "float32 run",
    "logits_f64": "same weights and input, float64 run (the reference to compare against)",
    "feat": "class token after the final LayerNorm, the input of the head (float32 run)",
    "feat_f64": "same, float64 run",
    "layer_sample": "output of block i: block x image x sampled token x first 8 channels",
    "layer_stats": "block x [mean, std] of it",
    "mixer_sample": "output of block i's attention, before the residual, sampled likewise",
    "mixer_stats": "block x [mean, std] of it",
}


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages that timm imports and its ViT does not use."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torchvision", "huggingface_hub"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        class Module(types.ModuleType):
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return mock.MagicMock(name=name)

        return Module(spec.name)

    def exec_module(self, module):
        pass


def manifest(model):
    """[[name, shape, dtype], ...] of the state_dict, in order."""
    state = model.state_dict().items()
    return [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in state]


def run(model, images, tokens):
    """What the float32 or float64 model computes: logits, features, and by block."""
    layers, mixers = [], []
    for block in model.blocks:
        block.register_forward_hook(lambda module, given, out: layers.append(out.numpy()))
        block.attn.register_forward_hook(lambda module, given, out: mixers.append(out.numpy()))
    with torch.no_grad():
        features = model.forward_features(images)
        logits = model.forward_head(features)
        given = model.forward_head(features, pre_logits=True)
    found = {"logits": logits.numpy(), "feat": given.numpy()}
    for name, arrays in (("layer", layers), ("mixer", mixers)):
        found[f"{name}_sample"] = np.stack([a[:, tokens, :8] for a in arrays])
        found[f"{name}_stats"] = np.array([[a.mean(), a.std()] for a in arrays])
    return found


def relative(got, want):
    return float(f"{np.abs(got - want).max() / np.abs(want).max():.3g}")


def make_case(timm, case):
    name, options, seed, shape = CASES[case]
    vit = timm.models.vision_transformer.VisionTransformer
    model = (timm.create_model(name) if name else vit(**options)).eval()
    entries = manifest(model)
    state = recipe.state_dict(seed, entries)
    images = recipe.images(seed, shape)
    length = model.pos_embed.shape[1]
    tokens = sorted({0, 1, 7, 8, length // 2, length - 2, length - 1})
    model.load_state_dict({key: torch.from_numpy(a) for key, a in state.items()})
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    single = run(model, pixels, tokens)
    for module in model.modules():
        module._forward_hooks.clear()
    double = run(model.double(), pixels.double(), tokens)
    arrays = {k: single[k] if k in ("logits", "feat") else double[k].astype(np.float32)
              for k in double}
    arrays |= {f"{k}_f64": double[k] for k in ("logits", "feat")}
    np.savez_compressed(FOLDER / f"{case}.npz", **arrays)
    content = {
        "case": case,
        "family": "vit",
        "source": {"package": "timm", "version": VERSION, "class": "VisionTransformer",
                   "model": name},
        "config": options,
        "seed": seed,
        "input": {"shape": shape, "layout": "NHWC", "crc32": recipe.crc(images)},
        "num_params": sum(p.numel() for p in model.parameters()),
        "sampled_tokens": tokens,
        "npz": f"{case}.npz",
        "arrays": {k: {"shape": a.shape, "dtype": str(a.dtype), "what": WHAT[k]}
                   for k, a in arrays.items()},
        "manifest_columns": ["name", "shape", "dtype", "crc32 of the recipe tensor"],
        "manifest": [[*entry, recipe.crc(state[entry[0]])] for entry in entries],
    }
    (FOLDER / f"{case}.json").write_text(json.dumps(content, indent=1))
    error = {k: relative(single[k], double[k]) for k in ("logits", "feat")}
    error["layers"] = max(relative(single[f"{k}_sample"][i], double[f"{k}_sample"][i])
                          for k in ("layer", "mixer") for i in range(len(double["layer_stats"])))
    line = {"case": case, "family": "vit", "model": name or case, "seed": seed, "input": shape,
            "num_params": content["num_params"], "float32_error": error}
    print(f"  {json.dumps(line)},")


def make_manifest(timm, name):
    with torch.device("meta"):
        model = timm.create_model(name)
    entries = manifest(model)
    content = {
        "model": name,
        "constructor": f"timm {VERSION}: {name}",
        "released_file": PUBLISHED[name],
        "checkpoint": {"weights_key": "model", "other_keys": [], "name_prefix": ""},
        "num_entries": len(entries),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_buffer_values": 0,
        "columns": ["name", "shape", "dtype"],
        "entries": [],
    }
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    text = json.dumps(content, indent=1).replace('"entries": []', f'"entries": [\n{lines}\n ]')
    (FOLDER / "manifests" / f"{name}.json").write_text(text)


def main():
    sys.meta_path.append(Empty())
    import timm  # pyright: ignore[reportMissingImports]

    assert timm.__version__ == VERSION
    for case in CASES:
        make_case(timm, case)
    for name in PUBLISHED:
        make_manifest(timm, name)


if __name__ == "__main__":
    main()
