"""UperNet on Vim on an official state_dict: masked blocks in numpy, the rest in PyTorch."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from tests.oracles.vim_oracle import Prune, mixer, prune_stage, rms_norm


class Result(NamedTuple):
    features: list  # Four of [B,D,H,W], before the pyramid.
    maps: list  # Four of [B,D,h,w], after it.
    logits: np.ndarray  # [B,classes,h,w] of the first map.
    auxiliary: np.ndarray  # [B,classes,h,w] of the third.
    margins: list  # Of each choice of tokens.


def upernet(state, images, ends, shown, prune: Prune) -> Result:
    """`images` [B,height,width,3]; `ends` are 1-based blocks; `shown` is "mixer" or "sum"."""
    state = {name: torch.from_numpy(np.asarray(a)).double() for name, a in state.items()}
    features, margins = _features(state, torch.from_numpy(images).double(), ends, shown, prune)
    maps = _pyramid(state, features)
    logits, auxiliary = _head(state, maps), _unit(state, "auxiliary_head.convs.0", maps[2])
    auxiliary = _conv(state, "auxiliary_head.conv_seg", auxiliary)
    return Result(features, maps, logits.numpy(), auxiliary.numpy(), margins)


def _features(state, images, ends, shown, prune):
    at = {name.removeprefix("backbone."): a for name, a in state.items()}
    kernel, bias = at["patch_embed.proj.weight"], at["patch_embed.proj.bias"]
    patches = F.conv2d(images.permute(0, 3, 1, 2), kernel, bias, stride=kernel.shape[-1])
    embedding, side = at["pos_embed"], round(at["pos_embed"].shape[1] ** 0.5)
    embedding = embedding.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if patches.shape[2:] != embedding.shape[2:]:
        embedding = F.interpolate(embedding, patches.shape[2:], mode="bicubic")
    B, D, H, W = patches.shape
    hidden = (patches + embedding).flatten(2).permute(0, 2, 1).numpy()
    at = {name: a.numpy() for name, a in at.items()}
    residual, keep = np.zeros_like(hidden), np.ones(hidden.shape[:2], bool)
    features, margins = [], []
    for i in range(ends[-1]):
        mixed_in = hidden + residual
        normed = rms_norm(mixed_in, at[f"layers.{i}.norm.weight"])
        mixed, y = mixer(at, f"layers.{i}.mixer.", normed, keep, prune)
        residual = np.where(keep[..., None], mixed_in, residual)
        hidden = np.where(keep[..., None], mixed, hidden)
        if i + 1 in prune.after_blocks:
            keep, margin = prune_stage(y, keep, prune)
            margins.append(margin)
        if i + 1 in ends:
            x = hidden if shown == "mixer" else hidden + residual
            x = torch.from_numpy(x).permute(0, 2, 1).reshape(B, D, H, W)
            features.append(x)
    return features, margins


def _pyramid(state, features):
    def up(name, x):
        weight, bias = (state[f"backbone.{name}.{part}"] for part in ("weight", "bias"))
        return F.conv_transpose2d(x, weight, bias, stride=2)

    a, b, c, d = features
    a = up("fpn1.3", F.gelu(_norm(state, "backbone.fpn1.1", up("fpn1.0", a))))
    return [a, up("fpn2.0", b), c, F.max_pool2d(d, 2)]


def _head(state, maps):
    head, last = "decode_head", maps[-1]
    pooled = [
        _resized(_unit(state, f"{head}.psp_modules.{i}.1", F.adaptive_avg_pool2d(last, n)), last)
        for i, n in enumerate((1, 2, 3, 6))
    ]
    laterals = [_unit(state, f"{head}.lateral_convs.{i}", maps[i]) for i in range(3)]
    laterals.append(_unit(state, f"{head}.bottleneck", torch.cat([last, *pooled], 1)))
    for i in (2, 1, 0):
        laterals[i] = laterals[i] + _resized(laterals[i + 1], laterals[i])
    outputs = [_unit(state, f"{head}.fpn_convs.{i}", laterals[i]) for i in range(3)]
    outputs = [_resized(x, outputs[0]) for x in (*outputs, laterals[3])]
    return _conv(
        state, f"{head}.conv_seg", _unit(state, f"{head}.fpn_bottleneck", torch.cat(outputs, 1))
    )


def _unit(state, name, x):
    kernel = state[f"{name}.conv.weight"]
    x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    return F.relu(_norm(state, f"{name}.bn", x))


def _norm(state, name, x):
    parts = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))


def _conv(state, name, x):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _resized(x, other):
    return F.interpolate(x, other.shape[2:], mode="bilinear", align_corners=False)
