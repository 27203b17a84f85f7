"""Batches of COCO: the official pipeline's numbers, grouping, shapes, processes."""

import itertools

import chex
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.dense.conftest import annotation, coco_content, random_image, write_coco
from train.data.dense.batches import normalise
from train.data.dense.coco import open_coco
from train.data.dense.detection_batches import (
    epoch_order,
    eval_batches,
    eval_pass,
    slots,
    train_batches,
)
from train.data.fetching.fetch import DataError

# Wide, high and square; the longest resized side is 70, the shortest 48 at most.
SIZES = [(40, 60), (60, 40), (50, 50), (30, 90), (45, 60), (60, 33), (48, 70)]
SMALL = {"scale": (70, 48), "shapes": ((64, 96), (96, 64))}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Seven photos; photo i has i objects of 4 x 5 pixels, so G is 6."""
    objects = [
        annotation(10 * i + k, 10 * (i + 1), (3 * k, 2 * k, 4, 5))
        for i in range(len(SIZES))
        for k in range(i)
    ]
    folder = tmp_path_factory.mktemp("coco")
    return open_coco(*write_coco(folder, coco_content(SIZES, objects)), masks=True)


def take(split, count, **options):
    options = SMALL | {"batch_size": 2, "seed": 0, "flip": 0.5} | options
    order = epoch_order(split, options.pop("batch_size"), options.pop("seed"))
    return list(itertools.islice(train_batches(split, order, **options), count))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        chex.assert_trees_all_equal(batch, other)


def masks_of(batch):
    return np.asarray(jnp.unpackbits(batch["gt_masks"], axis=-1))


def test_official_pipeline(units, tmp_path):
    """Resizing, flipping, normalising and padding of image, boxes and masks, all at once."""
    image, boxes = units["pipe.image_bgr_u8"], units["pipe.boxes"].astype(float)
    sizes = boxes[:, 2:] - boxes[:, :2]
    objects = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(int).tolist()):
        polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
        box = (*boxes[i, :2].tolist(), *sizes[i].tolist())
        objects.append(annotation(i, 10, box, segmentation=[polygon]))
    paths = write_coco(tmp_path, coco_content([image.shape[:2]], objects))
    cv2.imwrite(str(paths[1] / "0.png"), image)
    shape = tuple(units["pipe.final_shape"][:2].tolist())
    split = open_coco(*paths, masks=True)
    batches = train_batches(
        split,
        epoch_order(split, batch_size=1, seed=0),
        scale=(266, 160),
        shapes=(shape,),
        flip=1.0,
    )
    batch = next(batches)
    final = np.asarray(normalise(batch["image"], batch["img_shape"]))
    chex.assert_trees_all_close(final.ravel()[::53], units["pipe.final_sub"], rtol=0, atol=1e-6)
    chex.assert_trees_all_equal(batch["gt_boxes"][0], units["pipe.final_boxes"])
    packed = units["pipe.final_masks_packed"]
    want = np.unpackbits(packed, axis=1).reshape(units["pipe.final_masks_shape"])
    chex.assert_trees_all_equal(masks_of(batch)[0], want)
    assert batch["gt_valid"].all()


def test_shapes_and_dtypes(split):
    for batch in take(split, 4):
        h, w = batch["image"].shape[1:3]
        assert (h, w) in SMALL["shapes"]
        expected = {
            "image": ((2, h, w, 3), np.uint8),
            "img_shape": ((2, 2), np.int32),
            "pad_shape": ((2, 2), np.int32),
            "gt_boxes": ((2, 6, 4), np.float32),
            "gt_labels": ((2, 6), np.int32),
            "gt_valid": ((2, 6), bool),
            "gt_masks": ((2, 6, h, w // 8), np.uint8),
            "index": ((2,), np.int64),
            "mask": ((2,), bool),
        }
        assert {key: (a.shape, a.dtype) for key, a in batch.items()} == expected


def test_rows(split):
    for batch in take(split, 8, flip=0.0):
        for i, count in enumerate(batch["index"]):
            photo = split.photos[count]
            h, w = batch["img_shape"][i]
            image = cv2.resize(random_image(count, photo.height, photo.width), (int(w), int(h)))
            chex.assert_trees_all_equal(batch["image"][i, :h, :w], image)
            assert not batch["image"][i, h:].any() and not batch["image"][i, :, w:].any()
            assert batch["pad_shape"][i].tolist() == [-(-h // 32) * 32, -(-w // 32) * 32]
            assert batch["gt_valid"][i].tolist() == [True] * count + [False] * (6 - count)
            assert not batch["gt_boxes"][i, count:].any() and not masks_of(batch)[i, count:].any()
            factor = np.array([w / photo.width, h / photo.height] * 2)
            boxes = batch["gt_boxes"][i, :count]
            chex.assert_trees_all_close(boxes, photo.boxes * factor, rtol=1e-6)
            for box, mask in zip(boxes, masks_of(batch)[i, :count], strict=True):
                ys, xs = np.nonzero(mask)
                corners = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                chex.assert_trees_all_close(corners, box, rtol=1e-7, atol=1.01)


def test_flip_mirrors_image_boxes_and_masks(split):
    for plain, flipped in zip(take(split, 3, flip=0.0), take(split, 3, flip=1.0), strict=True):
        for i, (h, w) in enumerate(plain["img_shape"]):
            mirrored = flipped["image"][i, :h, :w][:, ::-1]
            chex.assert_trees_all_equal(plain["image"][i, :h, :w], mirrored)
            valid = plain["gt_valid"][i]
            boxes = flipped["gt_boxes"][i, valid][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [w, 0, w, 0]
            chex.assert_trees_all_close(plain["gt_boxes"][i, valid], boxes, rtol=1e-7, atol=1e-5)
            masks = masks_of(flipped)[i, :, :h, :w][..., ::-1]
            chex.assert_trees_all_equal(masks_of(plain)[i, :, :h, :w], masks)
    flips = [
        not np.array_equal(a["image"][i], b["image"][i])
        for a, b in zip(take(split, 30, flip=0.5), take(split, 30, flip=0.0), strict=True)
        for i in range(2)
    ]
    assert 15 <= sum(flips) <= 45


def test_epochs_have_one_orientation_a_batch_and_every_photo(split):
    order = epoch_order(split, 2, seed=3)
    assert order.steps == 4  # Of 4 wide ones, 2; of 3 others, 2 with one twice.
    wide = {0, 3, 4, 6}
    epochs = []
    for epoch in range(5):
        batches = [order.batch(4 * epoch + step).tolist() for step in range(4)]
        assert all(set(batch) <= wide or not set(batch) & wide for batch in batches)
        drawn = list(itertools.chain(*batches))
        assert set(drawn) == set(range(7)) and sorted(n for n in drawn if n in wide) == [0, 3, 4, 6]
        epochs.append(tuple(drawn))
    assert len(set(epochs)) == 5
    assert epochs != [tuple(epoch_order(split, 2, seed=4).batch(4 * e)) for e in range(5)]


def test_a_group_smaller_than_a_batch_repeats_its_photos(split):
    order = epoch_order(split, 8, seed=0)
    assert order.steps == 2
    counts = sorted(np.unique(order.batch(n), return_counts=True)[1].tolist() for n in range(2))
    assert counts == [[2, 2, 2, 2], [2, 3, 3]]


def test_resuming_processes_and_workers_change_nothing(split):
    whole = take(split, 6)
    assert_same(take(split, 4, first=2), whole[2:])
    halves = [take(split, 6, process=(number, 2)) for number in range(2)]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)
    assert_same(take(split, 3, workers=1), whole[:3])
    with pytest.raises(AssertionError):
        assert_same(take(split, 6, seed=1), whole)


def test_a_step_compiles_once_for_each_shape(split):
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(lambda *given: normalise(*given), n=2))
    shapes = set()
    for batch in take(split, 20):
        step(batch["image"], batch["img_shape"])
        shapes.add(batch["image"].shape)
    assert len(shapes) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_evaluation_has_every_photo_once(split, batch_size):
    plan = eval_pass(split, batch_size=batch_size, **SMALL)
    parts = [
        list(eval_batches(split, plan, scale=SMALL["scale"], process=(number, processes)))
        for processes in {1, batch_size}
        for number in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    seen = [i for batch in parts[0] for i in batch["index"].tolist() if i >= 0]
    assert sorted(seen) == list(range(7)) and plan.shapes == ((64, 96), (96, 64))
    joined = [i for part in parts[1:] for batch in part for i in batch["index"].tolist() if i >= 0]
    assert batch_size == 1 or sorted(joined) == list(range(7))
    for batch in parts[0]:
        chex.assert_trees_all_equal(batch["mask"], batch["index"] >= 0)
        assert not batch["image"][~batch["mask"]].any()
        for i in np.flatnonzero(batch["mask"]):
            photo = split.photos[batch["index"][i]]
            assert batch["image_id"][i] == photo.image_id
            assert tuple(batch["original_shape"][i]) == (photo.height, photo.width)
            h, w = batch["img_shape"][i]
            factor = np.array([w / photo.width, h / photo.height] * 2)
            chex.assert_trees_all_close(batch["scale_factor"][i], factor, rtol=1e-6)
            image = cv2.resize(
                random_image(batch["index"][i], photo.height, photo.width), (int(w), int(h))
            )
            chex.assert_trees_all_equal(batch["image"][i, :h, :w], image)


def test_evaluation_in_the_photos_own_shapes(split):
    plan = eval_pass(split, batch_size=1, scale=(70, 48), shapes=None)
    for batch in eval_batches(split, plan, scale=(70, 48)):
        assert batch["image"].shape[1:3] == tuple(batch["pad_shape"][0])
    assert plan.shapes == ((32, 96), (64, 64), (64, 96), (96, 64))


def test_what_is_not_possible(split):
    with pytest.raises(ValueError, match="have up to 48 x 70 pixels; add a shape"):
        take(split, 1, shapes=((96, 64),))
    with pytest.raises(ValueError, match="The batch size is 3; .* multiple of the 2 processes"):
        take(split, 1, batch_size=3, process=(0, 2))


def test_photos_that_cannot_be_read(tmp_path):
    objects = [annotation(1, 10, (2, 3, 10, 8))]
    annotations, images = write_coco(tmp_path, coco_content([(20, 30)], objects))
    split = open_coco(annotations, images)
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"0.png is not a readable JPEG or PNG; copy it again\.$"):
        take(split, 1)
    cv2.imwrite(str(images / "0.png"), random_image(0, 30, 20))
    with pytest.raises(DataError, match="has 30 x 20 pixels, its annotations say 20 x 30"):
        take(split, 1)
    (images / "0.png").unlink()
    with pytest.raises(DataError, match="0.png cannot be read: No such file"):
        take(split, 1)


COUNTS = (0, 2, 8, 9, 3, 1, 70)  # Objects of each photo of `skewed`.


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """Seven photos, one of them with many objects."""
    objects = [
        annotation(100 * i + k, 10 * (i + 1), (k % 20, k % 13, 4, 5))
        for i, count in enumerate(COUNTS)
        for k in range(count)
    ]
    folder = tmp_path_factory.mktemp("skewed")
    return open_coco(*write_coco(folder, coco_content(SIZES, objects)), masks=True)


def test_a_batch_has_as_many_slots_as_it_needs(skewed):
    """Few numbers of them, so that few programs compile; the same in all processes."""
    order, numbers = epoch_order(skewed, 2, seed=0), range(12)
    wanted = []
    for number in numbers:
        most = max(COUNTS[i] for i in order.batch(number))
        wanted.append(8 if most <= 8 else 16 if most <= 16 else 70)
    assert set(wanted) == {8, 16, 70}
    for options in ({}, {"process": (0, 2)}, {"process": (1, 2)}):
        batches = take(skewed, len(numbers), **options)
        for kind in ("gt_boxes", "gt_labels", "gt_valid", "gt_masks"):
            assert [batch[kind].shape[1] for batch in batches] == wanted
        for batch in batches:
            assert batch["gt_valid"].sum(axis=1).tolist() == [COUNTS[i] for i in batch["index"]]
    # Of its number and seed alone.
    assert_same(take(skewed, 3, first=4), take(skewed, 7)[4:])
    bytes_of = [sum(array.nbytes for array in batch.values()) for batch in take(skewed, 12)]
    image = take(skewed, 1)[0]["image"].nbytes
    before = image + 2 * 70 * (64 * 96 // 8 + 16 + 4 + 1)  # With the split's most, each batch.
    assert max(bytes_of) == pytest.approx(before, rel=1e-3) and min(bytes_of) < 0.4 * before


@pytest.mark.parametrize(
    ("objects", "most", "wanted"),
    [
        ((0,), 93, 8),
        ((8, 1), 93, 8),
        ((9,), 93, 16),
        ((33,), 93, 64),
        ((65,), 93, 93),
        ((2,), 3, 3),
    ],
)
def test_numbers_of_slots(objects, most, wanted):
    assert slots(np.array(objects), most) == wanted
