"""Losses: official values, padding and gradients."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from ssmjax.dense.heads import losses
from tests.ssmjax.dense import units
from tests.variants import in_all_variants


class TestVariants(chex.TestCase):
    variant: Any  # Chex declares that it only raises.

    @in_all_variants
    @parameterized.parameters(units.ALL)
    def test_official_values(self, unit):
        assert set(unit["loss.weights"].tolist()) <= {0, 1}
        (last,) = unit.numbers("loss.rpn_bce")[-1:]

        @self.variant
        def values(given):
            logits, labels, valid = given["logits"], given["labels"], given["weights"] > 0
            # "... (label 0) where labels <= 3 ..."
            positive = labels <= unit.numbers("loss.rpn_bce")[2]
            return {
                "focal": losses.focal(logits, labels, valid) / unit.numbers("loss.focal")[-1],
                "rpn_bce": losses.binary_cross_entropy(logits[:, 0], positive, valid) / last,
                "ce": losses.cross_entropy(given["logits8"], labels, valid).mean,
                "mask": losses.mask(
                    given["mask_logits"].transpose(0, 2, 3, 1),
                    given["mask_target"] > 0,
                    given["mask_labels"],
                    np.ones(len(given["mask_labels"]), bool),
                ).mean,
                "seg_ce": losses.segmentation(given["seg_logits"], given["seg_labels"]).mean,
            }

        names = [name.removeprefix("loss.") for name in unit.arrays if name.startswith("loss.")]
        got = values({name: unit[f"loss.{name}"] for name in names})
        chex.assert_type([*got.values()], jnp.float32)
        chex.assert_shape([*got.values()], ())
        want = {name: unit[f"loss.{name}"].squeeze() for name in got}
        chex.assert_trees_all_close(got, want, rtol=1e-5)


def test_l1_is_summed_over_positives():
    deltas = np.arange(12, dtype=np.float32).reshape(3, 4)
    positive = np.array([True, False, True])
    assert losses.l1(deltas, deltas - 2, positive) == 2 * 4 * 2
    assert losses.l1(deltas, deltas - 2, ~positive) == 4 * 2


def test_infinite_targets_of_padding_leave_the_gradient_alone():
    """Deltas to an object of padding, without width and height, are infinite or NaN."""
    deltas = jnp.ones((3, 4))
    targets = np.float32([[3] * 4, [-np.inf] * 4, [np.nan] * 4])
    positive = np.array([True, False, False])
    value, gradient = jax.value_and_grad(losses.l1)(deltas, targets, positive)
    assert value == 8
    chex.assert_trees_all_equal(gradient, np.array([[-1] * 4, [0] * 4, [0] * 4]))


def losses_of(logits, maps, valid):
    """Each loss, of logits [R,C] and maps [R,2,2,C], with the other arguments fixed."""
    R, C = logits.shape
    labels = np.arange(R) % C
    return {
        "focal": losses.focal(logits, labels, valid),
        "binary": losses.binary_cross_entropy(logits[:, 0], labels == 1, valid),
        "softmax": losses.cross_entropy(logits, labels, valid).mean,
        "mask": losses.mask(maps, maps[..., 0] > 0, labels, valid).mean,
        "segmentation": losses.segmentation(logits, jnp.where(valid, labels, 255)).mean,
    }


def test_padding_adds_nothing():
    rng = np.random.default_rng(0)
    logits, maps = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((6, 3), (6, 2, 2, 3))
    )
    valid = np.array([True, True, False, True, False, False])
    got = losses_of(logits, maps, valid)
    # Taken out of the arrays; the labels are those of the places.
    small = (
        np.where(valid[:, None], logits, 100.0),
        np.where(valid[:, None, None, None], maps, 100.0),
    )
    for name, value in losses_of(*small, valid).items():
        assert value == got[name] > 0, name
    for name, value in losses_of(logits, maps, np.zeros(6, bool)).items():
        assert value == 0, name
    assert got["softmax"] > got["segmentation"] == got["softmax"] / 2


def test_gradients_are_finite_however_sure_the_logits():
    maps = np.array([200, -200, 0], np.float32)[:, None, None, None] * np.ones(
        (3, 2, 2, 3), np.float32
    )
    logits, valid = maps[:, 0, 0], np.ones(3, bool)
    total = jax.grad(
        lambda logits, maps: sum(losses_of(logits, maps, valid).values()), argnums=(0, 1)
    )
    gradients = jax.jit(total)(logits, maps)
    chex.assert_tree_all_finite(gradients)
    assert min(np.abs(gradient).max() for gradient in gradients) > 0.01


def test_focal_loss_by_its_formula():
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((5, 4)) * 3
    labels = np.array([0, 3, 4, 80, 1])  # 4 classes: 4 and 80 are background.
    valid = np.array([True, True, True, True, False])
    p, want = 1 / (1 + np.exp(-logits)), 0.0
    for a, c in np.ndindex(4, 4):
        right = labels[a] == c
        pt = p[a, c] if right else 1 - p[a, c]
        want -= (0.25 if right else 0.75) * (1 - pt) ** 2 * np.log(pt)
    chex.assert_trees_all_close(losses.focal(jnp.float32(logits), labels, valid), want, rtol=1e-5)
