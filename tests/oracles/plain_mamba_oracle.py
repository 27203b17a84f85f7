"""PlainMamba with token pruning in numpy float64, on the official state_dict, as a *masked* run.

Every layer works on all L = H * W positions. A pruned position injects nothing into the hidden
state of a path, still moves it one step (`exp(gamma A)`), and its output is ignored. In the
convolutions a hole of the grid holds the value of the nearest kept token (`compact`), or zero
(`aligned`).

The official layer reorders `u` only: step i of any path takes delta, B and C of token i in raster
order. Pruned, the i-th kept step of a path takes those of the i-th kept token in raster order;
`paired` gives each token its own in every path.
"""

import numpy as np
from scipy.special import erf

from tests.oracles.scan_oracle import softplus
from tests.oracles.vim_oracle import Prune, Result, prune_stage, silu

DENSE = Prune()
CODE_OF_MOVE = {(0, 1): 1, (0, -1): 2, (-1, 0): 3, (1, 0): 4}  # (dy, dx): right, left, up, down


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def batch_norm(state, prefix, x, keep=None, seen=None):
    """By stored statistics; with `seen`, a dict, by those of x where `keep`, which it then gets.

    It gets, by prefix, the mean and the unbiased variance.
    """
    if seen is None:
        mean, var = state[f"{prefix}running_mean"], state[f"{prefix}running_var"]
    else:
        rows = x.reshape(-1, x.shape[-1]) if keep is None else x[keep]
        mean, var = rows.mean(axis=0), rows.var(axis=0)
        seen[prefix] = mean, var * len(rows) / (len(rows) - 1)
    return (x - mean) / np.sqrt(var + 1e-5) * state[f"{prefix}weight"] + state[f"{prefix}bias"]


def conv2d(x, weight, stride, padding):
    """x [B, H, W, C], weight [D, C, k, k] -> [B, H', W', D]."""
    around, size = (padding, padding), weight.shape[-1]
    padded = np.pad(x, ((0, 0), around, around, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bhwcij,dcij->bhwd", windows, weight, optimize=True)


def embed(state, images, seen=None):
    """Returns (tokens [B, L, D] with the position embedding, (H, W)); `seen` as of `batch_norm`."""
    prefix = "backbone.patch_embed."
    x = conv2d(images, state[f"{prefix}stem.0.weight"], stride=2, padding=3)
    x = np.maximum(batch_norm(state, f"{prefix}stem.1.", x, seen=seen), 0)
    number = 0
    while f"{prefix}convs.{number}.weight" in state:  # conv, norm, ReLU: three numbers each
        x = conv2d(x, state[f"{prefix}convs.{number}.weight"], stride=1, padding=1)
        x = np.maximum(batch_norm(state, f"{prefix}convs.{number + 1}.", x, seen=seen), 0)
        number += 3
    weight = state[f"{prefix}projection.weight"]
    size = weight.shape[-1]
    _, height, width, _ = x.shape
    x = np.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
    x = conv2d(x, weight, stride=size, padding=0) + state[f"{prefix}projection.bias"]
    tokens = x.reshape(len(x), -1, len(weight))
    assert state["backbone.pos_embed"].shape == (1, *tokens.shape[1:])
    return tokens + state["backbone.pos_embed"], x.shape[1:3]


def paths(height, width):
    """Raster index visited at each step, and code of the move made to get there: two [4, L]."""
    grid = np.arange(height * width).reshape(height, width)

    def serpentine(lines):
        return np.concatenate([line[::-1] if i % 2 else line for i, line in enumerate(lines)])

    rows, columns = serpentine(grid), serpentine(grid.T)
    order = np.stack([rows, rows[::-1], columns, columns[::-1]])
    codes = np.zeros_like(order)  # 0: the start
    for path, tokens in enumerate(order):
        for t in range(1, len(tokens)):
            (y0, x0), (y1, x1) = divmod(tokens[t - 1], width), divmod(tokens[t], width)
            codes[path, t] = CODE_OF_MOVE[y1 - y0, x1 - x0]
    return order, codes


def fill_holes(x, keep, width, how):
    """One image x [L, E], keep [L] -> [L, E]: what a convolution sees at each position."""
    if how == "frozen":  # Dense tasks: what a pruned position holds stays to be seen.
        return x
    if how == "aligned":
        return np.where(keep[:, None], x, 0)
    at, kept = np.arange(len(x))[:, None], np.flatnonzero(keep)
    distance = abs(at // width - kept // width) + abs(at % width - kept % width)
    return x[kept[distance.argmin(1)]]  # argmin takes the first, so ties go to the lower index


def depthwise_conv(x, keep, grid, weight, how):
    """x [B, L, E] with holes, weight [E, 1, k, k] -> [B, L, E]."""
    (height, width), size = grid, weight.shape[-1]
    seen = np.stack([fill_holes(xi, ki, width, how) for xi, ki in zip(x, keep, strict=True)])
    around = (size // 2, size // 2)
    seen = np.pad(seen.reshape(len(x), height, width, -1), ((0, 0), around, around, (0, 0)))
    out = sum(
        seen[:, i : i + height, j : j + width] * weight[:, 0, i, j]
        for i in range(size)
        for j in range(size)
    )
    return np.reshape(out, x.shape)


def scan(order, directions, keep, u, delta, B, C, A, D, zero_token, alignment, paired):
    """One path: u, delta [B, L, E], B, C [B, L, N] in raster order -> y [B, L, E] likewise.

    `order` [L] is the token at each step, `directions` [L, N] what is added to B at each step.
    """
    parameters_of = np.tile(order, (len(u), 1))  # whose delta, B, C the step takes
    if not paired:
        for i, row in enumerate(keep):
            parameters_of[i, row[order]] = np.flatnonzero(row)
    image = np.arange(len(u))
    h = np.zeros((len(u), *A.shape))
    last_delta = np.zeros_like(u[:, 0])  # before the first kept token the state is zero anyway
    y = np.zeros_like(u)
    for t, token in enumerate(order):
        kept, source = keep[:, token, None], parameters_of[:, t]
        own_delta = delta[image, source]
        gamma = {"previous": last_delta, "zero_token": zero_token, "none": 0.0}[alignment]
        step = np.where(kept, own_delta, gamma)
        inject = (own_delta * u[:, token])[:, :, None] * (B[image, source] + directions[t])[:, None]
        h = np.exp(step[:, :, None] * A) * h + np.where(kept[:, :, None], inject, 0)
        y[:, token] = (h @ C[image, source][:, :, None])[:, :, 0] + D * u[:, token]
        last_delta = np.where(kept, own_delta, last_delta)
    return y


def mixer(state, prefix, x, keep, grid, prune, paired):
    """Returns (output of the mixer, what entered out_proj)."""

    def w(name):
        return state[f"{prefix}{name}"]

    x, z = np.split(x @ w("in_proj.weight").T + w("in_proj.bias"), 2, axis=-1)
    conv_bias = w("conv2d.bias")
    u = silu(depthwise_conv(x, keep, grid, w("conv2d.weight"), prune.conv) + conv_bias)
    A = -np.exp(w("A_log"))
    dt_weight, dt_bias = w("dt_proj.weight"), w("dt_proj.bias")
    rank, states = dt_weight.shape[1], A.shape[1]
    x_proj = w("x_proj.weight")
    low, B, C = np.split(u @ x_proj.T, [rank, rank + states], axis=-1)
    delta = softplus(low @ dt_weight.T + 2 * dt_bias)  # the layer's own bias, then the scan's
    zero_token = softplus(2 * dt_bias + dt_weight @ (x_proj[:rank] @ silu(conv_bias)))
    y = sum(
        scan(
            order,
            w("direction_Bs")[codes],
            keep,
            u,
            delta,
            B,
            C,
            A,
            w("D"),
            zero_token,
            prune.alignment,
            paired,
        )
        for order, codes in zip(*paths(*grid), strict=True)
    )
    y = y * silu(z)
    return y @ w("out_proj.weight").T + w("out_proj.bias"), y


def grid_conv_block(state, prefix, x, keep, grid, how, seen=None):
    """Depthwise 3x3, batch norm, GELU with erf."""
    x = depthwise_conv(x, keep, grid, state[f"{prefix}0.weight"], how)
    x = batch_norm(state, f"{prefix}1.", x, keep, seen)
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def plain_mamba(state, images, prune: Prune = DENSE, paired=False, given=None, seen=None) -> Result:
    """From official state_dict and images to all that is known of them.

    Args:
      given: the positions kept at each stage, in place of a selection by score.
      seen: a dict: batch norms train, and it gets their statistics; see `batch_norm`.
    """
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    embedded, grid = embed(state, np.asarray(images, np.float64), seen)
    depth = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("backbone.layers."))
    x, keep = embedded, np.ones(embedded.shape[:2], bool)
    all_hidden, all_x, positions, margins = [], [], [], []
    for i in range(depth):
        prefix = f"backbone.layers.{i}."
        normed = layer_norm(x, state[f"{prefix}norm.weight"], state[f"{prefix}norm.bias"], 1e-5)
        hidden, y = mixer(state, f"{prefix}mamba.", normed, keep, grid, prune, paired)
        x = x + hidden
        if f"{prefix}dw.0.weight" in state:
            x = grid_conv_block(state, f"{prefix}dw.", x, keep, grid, prune.conv, seen)
        all_hidden.append(hidden)
        all_x.append(x)
        if i + 1 in prune.after_blocks:
            stage = None if given is None else given[len(positions)]
            keep, margin = prune_stage(y, keep, prune, stage)
            positions.append(np.stack([np.flatnonzero(row) for row in keep]))
            margins.append(margin)
            x = np.where(keep[:, :, None], x, np.nan)  # whatever still read it would show
    normed = layer_norm(x, state["backbone.ln1.weight"], state["backbone.ln1.bias"], 1e-6)
    features = np.stack([row[kept].mean(0) for row, kept in zip(normed, keep, strict=True)])
    logits = features @ state["head.fc.weight"].T + state["head.fc.bias"]
    return Result(
        logits, features, embedded, np.stack(all_hidden), np.stack(all_x), positions, margins
    )
