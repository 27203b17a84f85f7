"""Mask R-CNN: stages, losses, a training step and detections against official numbers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssmjax.convert.load import table
from ssmjax.dense.geometry.masks import mask_targets, paste
from ssmjax.dense.geometry.roi_align import level_of, roi_align
from ssmjax.dense.heads.box_head import BINS
from ssmjax.dense.heads.mask_head import BINS as MASK_BINS
from ssmjax.dense.heads.mask_head import SIZE
from ssmjax.dense.heads.rpn import Proposals, proposals, rpn_losses
from ssmjax.models.run import Run
from tests.oracles import downstream as golden
from tests.ssmjax.dense import whole

TINY = golden.names("maskrcnn_tiny_*")
optimised = functools.partial(whole.jitted, compiler_options=whole.OPTIMISED)
cropped = jax.jit(mask_targets, static_argnums=4)
pasted = jax.jit(paste, static_argnums=2)


@whole.jitted
def first_stage(model, images, targets):
    maps = model.neck(model.backbone(images, Run()).maps)
    said = model.rpn(maps)
    shapes = targets.image_shapes
    number = model.config.proposals
    found = {train: proposals(said, shapes, number, train=train) for train in (False, True)}
    return maps, said, rpn_losses(said, targets, None), found


@optimised
def detected(model, maps, found, shapes):
    return model.detect_in(maps, found, shapes, masks=False)


@optimised
def second_stage(model, maps, given, targets):
    """With given proposals: regions, losses and detections."""
    return (
        model.regions(given, targets, None),
        model.region_losses(maps, given, targets, None, train=False),
        model.detect_in(maps, given, targets.image_shapes, masks=True),
    )


@optimised
def heads(model, maps, boxes, valid):
    """What the heads say of regions [B,R,4]."""
    boxes_of, masks_of = (roi_align(maps[:4], boxes, valid, bins) for bins in (BINS, MASK_BINS))
    classes, deltas = model.box_head(boxes_of, valid)
    deltas = deltas.reshape(*valid.shape, -1)
    return boxes_of, masks_of, classes, deltas, model.mask_head(masks_of)


@functools.cache
def first(case_name):
    """(case, model, targets, the feature pyramid, ...)."""
    case = golden.load(case_name)
    model, targets = whole.model_of(case), whole.targets_of(case)
    return case, model, targets, *first_stage(model, case.images, targets)[0]


def _check_first_stage(name):
    case, _, _, maps, said, losses, found = first(name)
    got = {f"fpn{i}": x for i, x in enumerate(maps)}
    for i, (H, W) in enumerate(said.grids):
        for kind, x in (("cls", said.logits[i]), ("reg", said.deltas[i])):
            got[f"rpn.{kind}{i}"] = x.reshape(len(x), H, W, -1)
    case.check(got)
    want = case.about["scalars"]["eval_bn_losses"]
    objectness, box = (term.mean for term in losses)
    whole.check_losses(whole.per_level("loss_rpn_cls", objectness), want)
    whole.check_losses(whole.per_level("loss_rpn_bbox", box), want)
    for when, of in (("test", found[False]), ("train", found[True])):
        assert of.valid.sum(axis=1).tolist() == case.about["scalars"][f"num_proposals_{when}"]
        for i in range(len(case.images)):
            rows = of.boxes[i], of.scores[i], of.valid[i]
            whole.check_rows(case, f"rpn.proposals_{when}{i}", *rows)


def _given(case):
    """The fixture's proposals, padded."""
    all_boxes = [case.want[f"fixed_proposals{i}"] for i in range(len(case.images))]
    P = 3 + max(map(len, all_boxes))
    boxes, valid = np.zeros((len(all_boxes), P, 4), np.float32), np.zeros((len(all_boxes), P), bool)
    for i, own in enumerate(all_boxes):
        boxes[i, : len(own)], valid[i, : len(own)] = own, True
    return Proposals(jnp.asarray(boxes), jnp.zeros(valid.shape), jnp.asarray(valid))


def _check_second_stage(name):
    case, model, targets, maps, *_ = first(name)
    given, padding = _given(case), targets.boxes.shape[1]
    (wanted, losses, found), _ = second_stage(model, maps, given, targets)
    official = case.about["scalars"]["eval_bn_losses"]
    whole.check_losses({f"fixedprops.{n}": term.mean for n, term in losses.items()}, official)
    targets_of = []
    for i in range(len(case.images)):
        objects = int(targets.valid[i].sum())
        # Theirs count objects, then proposals; ours count the padding between, too.
        places = np.array([*range(objects), *range(padding, padding + given.boxes.shape[1])])
        boxes = np.concatenate([targets.boxes[i], given.boxes[i]])
        for which in ("pos", "neg"):
            theirs = places[case.want[f"fixedprops.{which}_inds{i}"]]
            mask = np.asarray(wanted.valid[i] & (wanted.positive[i] == (which == "pos")))
            assert len(theirs) == mask.sum()
            chex.assert_trees_all_equal(np.asarray(wanted.boxes[i])[mask], boxes[theirs])
        positive = np.asarray(wanted.positive[i])
        of = np.asarray(wanted.objects[i])[positive]
        chex.assert_trees_all_equal(of, case.want[f"fixedprops.pos_gt{i}"])
        sides = targets.padded_shapes[i]
        assert targets.masks is not None
        targets_of.append(cropped(targets.masks[i], of, wanted.boxes[i][positive], sides, SIZE))
        rows = found.boxes[i], found.scores[i], found.valid[i]
        whole.check_rows(case, f"fixedprops.det{i}.boxes_scores", *rows, labels=found.labels[i])
        n, H, W = case.want[f"masks{i}.shape"]
        image = case.about["images"][i]
        assert image["ori_shape"] == [H, W]
        boxes = found.boxes[i, :n] / image["scale_factor"]
        masks = np.asarray(pasted(found.masks[i, :n], boxes, (H, W))) >= 0.5
        chex.assert_trees_all_equal(masks.sum(axis=(1, 2)), case.want[f"masks{i}.area"])
        packed = np.packbits(masks.reshape(n, -1), axis=1)
        chex.assert_trees_all_equal(packed, case.want[f"masks{i}.packed"])
    packed = np.packbits(np.concatenate(targets_of).reshape(-1, SIZE * SIZE), axis=1)
    chex.assert_trees_all_equal(packed, case.want["fixedprops.mask_targets_packed"])


def _check_heads(name):
    case, model, _, maps, *_ = first(name)
    images, boxes = case.want["fixed_rois"][:, 0].astype(int), case.want["fixed_rois"][:, 1:]
    chex.assert_trees_all_equal(level_of(boxes), case.want["fixed_rois.level"])
    # Each image's regions in a row of their own, and a place left over.
    place = np.array([(images[:i] == image).sum() for i, image in enumerate(images)])
    rows = np.zeros((len(case.images), place.max() + 2, 4), np.float32)
    valid = np.zeros(rows.shape[:2], bool)
    rows[images, place], valid[images, place] = boxes, True
    said, _ = heads(model, maps, rows, valid)
    names = ("roialign7", "roialign14", "bbox_head.cls", "bbox_head.reg", "mask_head.logits")
    case.check(dict(zip(names, (np.asarray(x)[images, place] for x in said), strict=True)))


def _check_detections(name):
    case, model, targets, maps, _, _, proposed = first(name)
    found, _ = detected(model, maps, proposed[False], targets.image_shapes)
    for i in range(len(case.images)):
        rows = found.boxes[i], found.scores[i], found.valid[i]
        whole.check_rows(case, f"e2e.det{i}.boxes_scores", *rows, labels=found.labels[i])


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_first_stage(name):
    _check_first_stage(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_heads(name):
    _check_heads(name)


@pytest.mark.parametrize("name", TINY)
def test_second_stage(name):
    _check_second_stage(name)


@pytest.mark.parametrize("name", TINY)
def test_detections(name):
    _check_detections(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.names("maskrcnn_l1_*"))
def test_official_of_published_size(name):
    _check_first_stage(name)
    _check_heads(name)
    _check_second_stage(name)
    _check_detections(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_training_step(downstream, name):
    """In float64: which regions are chosen hangs on the order of proposals of nearly one score."""
    case = downstream(name)
    with jax.enable_x64(True):
        model = whole.model_of(case, dtype="float64")
        losses, gradients, statistics = whole.step(model, case.images, whole.targets_of(case))
    official = case.about["scalars"]["train_bn_losses"]
    assert set(losses) == {n for n in official if n.startswith("loss") and "." not in n}
    whole.check_losses(losses, official)
    entries = table(model.config)
    whole.check_gradients(case, gradients, entries)
    whole.check_statistics(case, statistics, entries)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY[:1])
def test_images_without_objects(downstream, name):
    case = downstream(name)
    with jax.enable_x64(True):
        targets = whole.targets_of(case)
        # Padding may hold anything.
        none = targets._replace(
            valid=jnp.zeros_like(targets.valid), boxes=jnp.full_like(targets.boxes, jnp.nan)
        )
        model = whole.model_of(case, dtype="float64")
        losses, gradients, _ = whole.step(model, case.images, none)
    for loss in ("loss_rpn_bbox", "loss_bbox", "loss_mask"):
        assert np.asarray(losses[loss]) == 0
    for loss in ("loss_rpn_cls", "loss_cls"):
        assert 0 < np.asarray(losses[loss]) < np.inf
    chex.assert_tree_all_finite(gradients)
