"""RetinaNet: stages, losses, a training step and detections against official numbers."""

import chex
import jax
import jax.numpy as jnp
import pytest

from ssmjax.convert.load import table
from ssmjax.dense.retinanet import anchor_losses, detections
from ssmjax.models.run import Run
from tests.oracles import downstream as golden
from tests.ssmjax.dense import whole

TINY = golden.names("retinanet_tiny_*")


@whole.jitted
def evaluated(model, images, targets):
    maps = model.neck(model.backbone(images, Run()).maps[1:])
    said = model.head(maps)
    return maps, said, anchor_losses(said, targets), detections(said, targets.image_shapes)


def _check(case):
    model, targets = whole.model_of(case), whole.targets_of(case)
    (maps, said, losses, found), _ = evaluated(model, case.images, targets)
    got = {f"fpn{i}": x for i, x in enumerate(maps)}
    for i, (H, W) in enumerate(said.grids):
        for name, x in (("cls", said.logits[i]), ("reg", said.deltas[i])):
            got[f"retina.{name}{i}"] = x.reshape(len(x), H, W, -1)
    case.check(got)
    over = case.about["scalars"]["candidates_over_threshold_per_level"]
    for x, count in zip(said.logits, over, strict=True):
        scores, rounding = jax.nn.sigmoid(x), 1e-5
        assert (scores > 0.05 + rounding).sum() <= count <= (scores > 0.05 - rounding).sum()
    classes, box = (term.mean for term in losses)
    named = whole.per_level("loss_cls", classes) | whole.per_level("loss_bbox", box)
    want = case.about["scalars"]["eval_bn_losses"]
    assert set(named) == set(want)
    whole.check_losses(named, want)
    for i in range(len(case.images)):
        name = f"det{i}.boxes_scores"
        rows = found.boxes[i], found.scores[i], found.valid[i]
        whole.check_rows(case, name, *rows, labels=found.labels[i])


@pytest.mark.parametrize("name", TINY)
def test_official(downstream, name):
    _check(downstream(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.names("retinanet_l1_*"))
def test_official_of_published_size(downstream, name):
    _check(downstream(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_training_step(downstream, name):
    case = downstream(name)
    model = whole.model_of(case)
    losses, gradients, statistics = whole.step(model, case.images, whole.targets_of(case))
    whole.check_losses(losses, case.about["scalars"]["train_bn_losses"])
    entries = table(model.config)
    whole.check_gradients(case, gradients, entries)
    whole.check_statistics(case, statistics, entries)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY[:1])
def test_images_without_objects(downstream, name):
    case = downstream(name)
    targets = whole.targets_of(case)
    # Padding may hold anything.
    none = targets._replace(
        valid=jnp.zeros_like(targets.valid), boxes=jnp.full_like(targets.boxes, jnp.nan)
    )
    losses, gradients, _ = whole.step(whole.model_of(case), case.images, none)
    assert losses["loss_bbox"] == 0 < losses["loss_cls"] < jnp.inf
    chex.assert_tree_all_finite(gradients)
