"""Whole models of the official configs that golden fixtures quote."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssmjax.convert.load import load_torch_state_dict
from ssmjax.dense.config import MaskRCNNConfig, RetinaNetConfig, UperNetConfig
from ssmjax.dense.heads.objects import Targets
from ssmjax.dense.registry import build
from tests.oracles.compare import assert_close
from tests.ssmjax.dense.official import backbone_config

LOSSES = 1e-4  # Relative.
# Of what runs long in comparison: here it runs in a tenth of the time.
OPTIMISED = {"xla_backend_optimization_level": 1}


def config_of(case, dtype="float32"):
    """Its config, without drop path and dropout."""
    official = case.about["config"]
    backbone = backbone_config(case.backbone, drop_path_rate=0.0, dtype=dtype)
    if case.about["kind"] == "upernet":
        head, auxiliary = official["decode_head"], official["auxiliary_head"]
        return UperNetConfig(
            backbone, head["num_classes"], head["channels"], auxiliary["channels"], dropout=0.0
        )
    width = official["neck"]["out_channels"]
    if case.about["kind"] == "retinanet":
        return RetinaNetConfig(backbone, official["bbox_head"]["num_classes"], width)
    head = official["roi_head"]["bbox_head"]
    return MaskRCNNConfig(backbone, head["num_classes"], width, head["fc_out_channels"])


def model_of(case, dtype="float32"):
    """Its model, with its weights."""
    model = nnx.eval_shape(lambda: build(config_of(case, dtype)))
    load_torch_state_dict(model, case.state())
    return model


def jitted(method: Callable, **options: Any):
    """(what a function of a model gives, the model's statistics after), compiled with `options`."""

    def run(model, *args):
        result = method(model, *args)
        return result, nnx.state(model, nnx.BatchStat)

    return jax.jit(run, **options)


@jax.jit
def step(model, images, targets, key=None):
    """(losses, gradients, statistics after) of a training step."""

    def total(model):
        losses = model.losses(images, targets, key=key)
        return sum(losses.values()), losses

    gradients, losses = nnx.grad(total, has_aux=True)(model)
    return losses, gradients, nnx.state(model, nnx.BatchStat)


def shapes(case, which="img_shape"):
    return jnp.asarray([image[which] for image in case.about["images"]], jnp.int32)


def targets_of(case, padding=2):
    """Its objects, and some padding."""
    B, height, width, _ = case.images.shape
    G = padding + max(len(case.want[f"gt.labels{i}"]) for i in range(B))
    boxes, labels = np.zeros((B, G, 4), np.float32), np.zeros((B, G), np.int32)
    valid, masks = np.zeros((B, G), bool), np.zeros((B, G, height, width), bool)
    for i in range(B):
        n = len(case.want[f"gt.labels{i}"])
        boxes[i, :n], labels[i, :n] = case.want[f"gt.boxes{i}"], case.want[f"gt.labels{i}"]
        valid[i, :n] = True
        if f"gt.masks{i}.packed" in case.want:
            h, w = case.about["images"][i]["pad_shape"]
            bits = np.unpackbits(case.want[f"gt.masks{i}.packed"], axis=1)[:, : h * w]
            masks[i, :n, :h, :w] = bits.reshape(n, h, w)
    arrays = (boxes, labels, valid, shapes(case), shapes(case, "pad_shape"), masks)
    return Targets(*(jnp.asarray(a) for a in arrays))


def check_losses(got, want):
    """Scalars by name against official ones, of those that `got` has."""
    chex.assert_trees_all_close(got, {name: want[name] for name in got}, rtol=LOSSES, atol=1e-9)


def per_level(name, values):
    return {f"{name}.{i}": value for i, value in enumerate(values)} | {name: values.sum()}


def check_rows(case, name, boxes, scores, valid, labels=None):
    """A set of boxes, matched by nearest row; each official one is found once."""
    want = case.want[name]
    got = np.concatenate([boxes, np.asarray(scores)[:, None]], axis=1)[np.asarray(valid)]
    chex.assert_equal_shape([got, want])
    distance = np.abs(got[:, None] - want).max(axis=-1)
    nearest = distance.argmin(axis=0)
    assert len(set(nearest)) == len(want)
    noise = 10 * case.about["arrays"][name]["float32_noise"]
    assert_close(got[nearest], want, max(noise, 1e-6), name)
    if labels is not None:
        official = case.want[name.replace("boxes_scores", "labels")]
        chex.assert_trees_all_equal(np.asarray(labels)[np.asarray(valid)][nearest], official)


def check_gradients(case, gradients, entries):
    """Norms of the gradients of all parameters, and which there are."""
    leaves = {".".join(map(str, p)): np.asarray(a[...]) for p, a in nnx.to_flat_state(gradients)}
    places = {entry.theirs: entry for entry in entries if entry.ours in leaves}
    names, norms = case.about["param_names"], case.want["grad_norms"]
    assert list(places) == names
    # As far off as the official float32 run was, for this parameter or in relation for any.
    noise = 10 * np.abs(case.want["grad_norms_float32_run"] - norms)
    relative = case.about["scalars"]["grad_norm_max_rel_diff_float32_run"]
    for name, norm, allowed in zip(names, norms, noise, strict=True):
        leaf, block = leaves[places[name].ours], places[name].block
        got = np.linalg.norm(leaf if block is None else leaf[block])
        norm = max(norm, 0)  # -1: it has none.
        assert abs(got - norm) <= allowed + relative * norm + 1e-6, (name, got, norm)


def check_statistics(case, statistics, entries):
    """Norms of the running statistics after the step."""
    got = {".".join(map(str, p)): np.asarray(a[...]) for p, a in nnx.to_flat_state(statistics)}
    norms = case.about["scalars"]["bn_buffer_norms_after_step"]
    wanted = [entry for entry in entries if entry.theirs in norms]
    assert len(wanted) == len(norms)
    for entry in wanted:
        assert_close(np.linalg.norm(got[entry.ours]), norms[entry.theirs], 2e-6, entry.theirs)
