"""ViT and EViT in numpy float64, on the official state_dict, as a *masked* run.

Every layer works on all tokens there ever were. A pruned token is no key of any attention after
its stage, so nothing sees it; what becomes of it is ignored. EViT prunes inside a block, after its
attention and before its MLP, by how much the class token attends to each token, mean over heads.
A fused token is appended behind all others: the sum of the tokens that its stage drops, each times
the attention it got.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from tests.oracles.vim_oracle import count_to_keep, select


class Result(NamedTuple):
    logits: np.ndarray  # [B, classes]
    features: np.ndarray  # [B, D], input of the head
    embedded: np.ndarray  # [B, L, D], input of the first block
    hidden: list  # per block [B, tokens, D], output of its attention
    outputs: list  # per block [B, tokens, D]
    positions: list  # per stage [B, K]: the tokens left, L + s for the one that stage s fused
    margins: list  # per stage: least (last kept - first pruned score) / largest score


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x, keep, heads, qkv_weight, qkv_bias, proj_weight, proj_bias):
    """([B, T, D] output, [B, T] what the class token pays to each, mean over heads)."""
    size = x.shape[-1] // heads
    q, k, v = np.split(x @ qkv_weight.T + qkv_bias, 3, axis=-1)
    paid, out = np.zeros(x.shape[:2]), np.zeros_like(x)
    for h in range(heads):
        of_head = slice(h * size, (h + 1) * size)
        products = q[..., of_head] @ k[..., of_head].swapaxes(1, 2) / math.sqrt(size)
        weights = softmax(np.where(keep[:, None, :], products, -np.inf))
        out[..., of_head] = weights @ v[..., of_head]
        paid = paid + weights[:, 0] / heads
    return out @ proj_weight.T + proj_bias, paid


def reduce(x, keep, paid, keep_ratio, fuse, given):
    """(tokens, those still kept, margin); `given` positions replace a selection by score."""
    after, margins, fused = np.zeros_like(keep), [], []
    for i, row in enumerate(paid):
        candidates = np.flatnonzero(keep[i])[1:]
        if given is None:
            chosen = select(row, candidates, count_to_keep(keep_ratio, len(candidates)))
        else:
            chosen = [p for p in given[i] if p in candidates]
        dropped = np.setdiff1d(candidates, chosen)
        after[i, [0, *chosen]] = True
        fused.append(row[dropped] @ x[i, dropped])
        if len(dropped):
            margins.append((row[chosen].min() - row[dropped].max()) / row[candidates].max())
    margin = min(margins, default=math.inf)
    if fuse:
        x = np.concatenate([x, np.stack(fused)[:, None]], axis=1)
        after = np.pad(after, ((0, 0), (0, 1)), constant_values=bool(margins))
    return x, after, margin


def embed(state, images):
    weight = state["patch_embed.proj.weight"]
    size = weight.shape[-1]
    B, height, width, C = images.shape
    cut = images.reshape(B, height // size, size, width // size, size, C)
    patches = np.einsum("bhiwjc,dcij->bhwd", cut, weight, optimize=True)
    patches = patches.reshape(B, -1, len(weight)) + state["patch_embed.proj.bias"]
    token = np.broadcast_to(state["cls_token"], (B, 1, len(weight)))
    return np.concatenate([token, patches], axis=1) + state["pos_embed"]


def vit(state, images, heads, after_blocks=(), keep_ratio=1.0, fuse=False, given=None) -> Result:
    """`given`: the positions kept at each stage, in place of a selection by score."""
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    x = embedded = embed(state, np.asarray(images, np.float64))
    keep = np.ones(x.shape[:2], bool)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    hidden, outputs, positions, margins = [], [], [], []

    def both(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    for i in range(depth):
        block = f"blocks.{i}"
        normed = layer_norm(x, *both(f"{block}.norm1"))
        mixed, paid = attention(
            normed, keep, heads, *both(f"{block}.attn.qkv"), *both(f"{block}.attn.proj")
        )
        x = x + mixed
        if i + 1 in after_blocks:
            stage = None if given is None else np.asarray(given[len(positions)])
            x, keep, margin = reduce(x, keep, paid, keep_ratio, fuse, stage)
            positions.append(np.stack([np.flatnonzero(row) for row in keep]))
            margins.append(margin)
        weight, bias = both(f"{block}.mlp.fc1")
        inner = layer_norm(x, *both(f"{block}.norm2")) @ weight.T + bias
        weight, bias = both(f"{block}.mlp.fc2")
        x = x + inner * (1 + erf(inner / math.sqrt(2))) / 2 @ weight.T + bias
        hidden.append(mixed)
        outputs.append(x)
    features = layer_norm(x[:, 0], *both("norm"))
    weight, bias = both("head")
    return Result(
        features @ weight.T + bias, features, embedded, hidden, outputs, positions, margins
    )
