"""Vim with token pruning in numpy float64, on the official state_dict, as a *masked* run.

Every layer works on all L positions. A pruned position injects nothing into the hidden state, still
moves it one step (`exp(gamma A)`), and its output is ignored. In the convolution kept tokens are
each other's neighbours (`compact`), or a pruned position is a zero (`aligned`).

The score of a token is taken from what enters `out_proj`, that is (forward + backward) / 2, both
times silu(z). The halving scales every score alike, so it does not change the ranking.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from tests.oracles.scan_oracle import sigmoid, softplus

GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class Prune:
    after_blocks: tuple = ()  # 1-based
    keep_ratio: float = 1.0
    importance: str = "clip"  # clip | sum | l1 | l2 | uniform
    alignment: str = "previous"  # previous | zero_token | none
    conv: str = "compact"  # compact | aligned


class Result(NamedTuple):
    logits: np.ndarray  # [B, classes]
    features: np.ndarray  # [B, D], input of the head
    embedded: np.ndarray  # [B, L, D], input of the first block
    hidden: np.ndarray  # [depth, B, L, D], output of each block's mixer
    residual: np.ndarray  # [depth, B, L, D], the sum each block normalised (PlainMamba: its output)
    positions: list  # one [B, K] per stage
    margins: list  # per stage: least (last kept - first pruned score) / largest |score|


def silu(x):
    return x * sigmoid(x)


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def count_to_keep(keep_ratio, present: int) -> int:
    """ceil(keep_ratio * present) of the ratio as written: 0.55 of 100 is 55 tokens.

    The binary float of 0.55 is a little more than 0.55, and 0.55 * 100 = 55.00000000000001 in
    floats; the product is therefore taken with the shortest decimal that reads as that float.
    """
    return math.ceil(Fraction(repr(float(keep_ratio))) * present)


def importance(y, how):
    """Score per token from what enters out_proj, y [B, L, E]."""
    if how == "uniform":
        return np.tile(np.modf(np.arange(y.shape[1]) * GOLDEN_RATIO)[0], (len(y), 1))
    return {
        "clip": lambda: np.where(np.isnan(y), y, np.maximum(y, 0)).sum(-1),
        "sum": lambda: y.sum(-1),
        "l1": lambda: np.abs(y).sum(-1),
        "l2": lambda: np.sqrt((y * y).sum(-1)),
    }[how]()


def select(scores, candidates, count: int):
    """The `count` best of `candidates` by score: ties to the lower position, NaN last; sorted."""

    def rank(position):
        score = scores[position]
        return (1, 0.0, position) if np.isnan(score) else (0, -score, position)

    return sorted(sorted(candidates, key=rank)[:count])


def prune_stage(y, keep, prune, given=None, always=()):
    """(the tokens still kept [B, L], margin); `given` positions replace a selection by score."""
    after, margins = np.zeros_like(keep), []
    if given is not None:
        np.put_along_axis(after, np.asarray(given), True, axis=1)
        return after, math.nan
    for i, row in enumerate(importance(y, prune.importance)):
        candidates = np.setdiff1d(np.flatnonzero(keep[i]), always)
        chosen = select(row, candidates, count_to_keep(prune.keep_ratio, len(candidates)))
        after[i, [*chosen, *always]] = True
        pruned = np.setdiff1d(candidates, chosen)
        if len(pruned):
            margins.append((row[chosen].min() - row[pruned].max()) / np.abs(row[candidates]).max())
    return after, min(margins, default=math.inf)


def causal_conv(x, keep, weight, bias, how):
    """Depthwise conv of width 4 over [L, E] in scan order; rows that are not kept are garbage."""
    rows = np.flatnonzero(keep) if how == "compact" else np.arange(len(x))
    source = np.where(keep[:, None], x, 0)[rows]
    width = weight.shape[-1]
    padded = np.concatenate([np.zeros((width - 1, x.shape[1])), source])
    out = np.zeros_like(x)
    out[rows] = sum(padded[j : j + len(rows)] * weight[:, 0, j] for j in range(width)) + bias
    return out


def branch(state, prefix, suffix, x, keep, prune):
    """One direction in scan order: x [B, L, E], keep [B, L] -> y [B, L, E] without the gate."""

    def w(name):
        return state[f"{prefix}{name}"]

    conv_bias = w(f"conv1d{suffix}.bias")
    u = silu(
        np.stack(
            [
                causal_conv(xi, ki, w(f"conv1d{suffix}.weight"), conv_bias, prune.conv)
                for xi, ki in zip(x, keep, strict=True)
            ]
        )
    )
    A = -np.exp(w(f"A{suffix}_log"))
    dt_weight, dt_bias = w(f"dt_proj{suffix}.weight"), w(f"dt_proj{suffix}.bias")
    rank, states = dt_weight.shape[1], A.shape[1]
    x_proj = w(f"x_proj{suffix}.weight")
    low, B, C = np.split(u @ x_proj.T, [rank, rank + states], axis=-1)
    delta = softplus(low @ dt_weight.T + dt_bias)
    zero_token = softplus(dt_bias + dt_weight @ (x_proj[:rank] @ silu(conv_bias)))

    h = np.zeros((len(x), *A.shape))
    last_delta = np.zeros_like(u[:, 0])  # before the first kept token the state is zero anyway
    y = np.zeros_like(u)
    for t in range(x.shape[1]):
        kept = keep[:, t, None]
        gamma = {"previous": last_delta, "zero_token": zero_token, "none": 0.0}[prune.alignment]
        step = np.where(kept, delta[:, t], gamma)
        inject = np.where(kept, delta[:, t] * u[:, t], 0)[:, :, None] * B[:, t, None, :]
        h = np.exp(step[:, :, None] * A) * h + np.where(kept[:, :, None], inject, 0)
        y[:, t] = (h @ C[:, t, :, None])[:, :, 0] + w(f"D{suffix}") * u[:, t]
        last_delta = np.where(kept, delta[:, t], last_delta)
    return y


def mixer(state, prefix, x, keep, prune):
    """Returns (output of the mixer, what entered out_proj)."""
    x, z = np.split(x @ state[f"{prefix}in_proj.weight"].T, 2, axis=-1)
    forward = branch(state, prefix, "", x, keep, prune)
    backward = branch(state, prefix, "_b", x[:, ::-1], keep[:, ::-1], prune)[:, ::-1]
    y = (forward + backward) * silu(z) / 2
    return y @ state[f"{prefix}out_proj.weight"].T, y


def embed(state, images, stride):
    weight = state["patch_embed.proj.weight"]
    size = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # [B, H, W, C, size, size]
    patches = np.einsum("bhwcij,dcij->bhwd", windows, weight, optimize=True)
    patches = patches.reshape(len(images), -1, len(weight)) + state["patch_embed.proj.bias"]
    middle = patches.shape[1] // 2
    cls = np.broadcast_to(state["cls_token"], (len(images), 1, len(weight)))
    tokens = np.concatenate([patches[:, :middle], cls, patches[:, middle:]], axis=1)
    return tokens + state["pos_embed"], middle


def vim(state, images, stride: int, prune: Prune = Prune(), given=None) -> Result:
    """`given`: the positions kept at each stage, in place of a selection by score."""
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    embedded, middle = embed(state, np.asarray(images, np.float64), stride)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
    hidden, residual = embedded, np.zeros_like(embedded)
    keep = np.ones(embedded.shape[:2], bool)
    all_hidden, all_residual, positions, margins = [], [], [], []
    for i in range(depth):
        residual = hidden + residual
        x = rms_norm(residual, state[f"layers.{i}.norm.weight"])
        hidden, y = mixer(state, f"layers.{i}.mixer.", x, keep, prune)
        all_hidden.append(hidden)
        all_residual.append(residual)
        if i + 1 in prune.after_blocks:
            stage = None if given is None else given[len(positions)]
            keep, margin = prune_stage(y, keep, prune, stage, always=(middle,))
            positions.append(np.stack([np.flatnonzero(row) for row in keep]))
            margins.append(margin)
    features = rms_norm((hidden + residual)[:, middle], state["norm_f.weight"])
    logits = features @ state["head.weight"].T + state["head.bias"]
    return Result(
        logits, features, embedded, np.stack(all_hidden), np.stack(all_residual), positions, margins
    )
