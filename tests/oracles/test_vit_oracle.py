"""The ViT oracle: its dense numbers against timm's, EViT's rules by hand."""

import chex
import numpy as np
import pytest

from tests.golden import recipe
from tests.oracles import golden, vit_oracle


@pytest.mark.parametrize("name", ["vit_micro", "deit_tiny"])
def test_dense(name):
    case = golden.load(name)
    got = vit_oracle.vit(case.state, case.images, heads=3)
    tolerance = {"logits": 1e-12, "feat": 1e-12, "layers": 1e-6}
    golden.check(case, got.logits, got.features, got.hidden, got.outputs, "float64", tolerance)


def test_attention_by_hand():
    """Two heads of one channel; q = k = v = x, and the third token is masked."""
    x = np.array([[[1.0, -1.0], [2.0, 0.5], [9.0, 9.0]]])
    keep = np.array([[True, True, False]])
    identity = np.concatenate([np.eye(2)] * 3)
    out, paid = vit_oracle.attention(x, keep, 2, identity, np.zeros(6), np.eye(2), np.zeros(2))
    first = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    second = np.exp([1.0, -0.5]) / np.exp([1.0, -0.5]).sum()
    chex.assert_trees_all_close(paid[0, :2], (first + second) / 2, rtol=1e-14)
    assert paid[0, 2] == 0
    chex.assert_trees_all_close(
        out[0, 0], np.array([first @ [1, 2], second @ [-1, 0.5]]), rtol=1e-14
    )


def test_reduce_by_hand():
    """Of the 4 tokens beside the class token ceil(0.5 * 4) = 2 stay; the others are summed."""
    x = np.arange(10.0).reshape(1, 5, 2)
    paid, keep = np.array([[0.3, 0.1, 0.25, 0.15, 0.2]]), np.ones((1, 5), bool)
    tokens, after, margin = vit_oracle.reduce(x, keep, paid, 0.5, True, None)
    assert np.flatnonzero(after).tolist() == [0, 2, 4, 5]
    chex.assert_trees_all_close(tokens[0, 5], 0.1 * x[0, 1] + 0.15 * x[0, 3], rtol=1e-14)
    assert margin == pytest.approx((0.2 - 0.15) / 0.25)
    # Once more: of 3 tokens 2 stay, and a fused one is a token like the others.
    paid = np.array([[0.4, 0.0, 0.1, 0.0, 0.2, 0.3]])
    again, after, _ = vit_oracle.reduce(tokens, after, paid, 0.5, True, None)
    assert np.flatnonzero(after).tolist() == [0, 4, 5, 6]
    chex.assert_trees_all_close(again[0, 6], 0.1 * x[0, 2], rtol=1e-14)
    # Nothing dropped: nothing fused.
    _, after, margin = vit_oracle.reduce(x, keep, paid[:, :5], 1.0, True, None)
    assert np.flatnonzero(after).tolist() == [0, 1, 2, 3, 4] and margin == np.inf


def test_pruned_tokens_are_not_there():
    """Without fusing, a run over the kept tokens alone: their positions cut out of the input."""
    sizes = {"embed_dim": 12, "depth": 2, "patch_size": 4, "tokens": 10, "classes": 3}
    state, images = golden.vit_state(5, **sizes), recipe.images(5, (1, 12, 12, 3))
    masked = vit_oracle.vit(state, images, 2, (1,), 0.5)
    (kept,) = masked.positions[0]
    assert len(kept) == 6
    only = {name.replace(".1.", ".0."): a for name, a in state.items() if ".0." not in name}
    rest = masked.outputs[0][:, kept]
    alone = vit_oracle.vit(
        only | {"patch_embed.proj.weight": np.zeros_like(state["patch_embed.proj.weight"]),
                "patch_embed.proj.bias": np.zeros(12), "cls_token": np.zeros((1, 1, 12)),
                "pos_embed": rest},
        np.zeros((1, 4, 20, 3)), 2,
    )  # fmt: skip
    chex.assert_trees_all_close(alone.logits, masked.logits, rtol=1e-12)
