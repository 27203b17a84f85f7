"""Batches: values, augmentation, order, exact resume and the padded end."""

import json

import cv2
import numpy as np
import pytest

from train.data import pipeline
from train.data.fetch import DataError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # Keeps 0 to 255.


class Memory(list):
    """Encoded examples in memory."""

    def __getitems__(self, keys):
        return [self[key] for key in keys]


def photos(count: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def source_of(images: np.ndarray) -> Memory:
    pngs = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
    return Memory({"image": png, "label": label} for label, png in enumerate(pngs))


def train(source, seed=0, augment=True, batch_size=4, image_size=8, **scale):
    return pipeline.train_batches(
        source,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        augment=augment,
        **(scale or PLAIN),
    )


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def test_values_without_augmentation():
    images = photos(10)
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 1.0)
    for batch in take(train(source_of(images), augment=False, mean=mean, std=std), 2):
        assert batch["image"].dtype == np.float32 and batch["image"].shape == (4, 8, 8, 3)
        assert batch["label"].dtype == np.int32 and batch["label"].shape == (4,)
        expected = (images[batch["label"]] / 255 - mean) / std
        np.testing.assert_allclose(batch["image"], expected, atol=1e-5)


def test_augmentation_is_a_crop_of_the_mirrored_image_or_its_flip():
    images = photos(80, height=16, width=16)
    batch = next(train(source_of(images), batch_size=80, image_size=16))
    seen = set()
    for found, label in zip(batch["image"].round(), batch["label"], strict=True):
        padded = np.pad(images[label], [(4, 4), (4, 4), (0, 0)], mode="reflect")
        matches = [
            (top, left, step)
            for top in range(9)
            for left in range(9)
            for step in (1, -1)
            if np.array_equal(padded[top : top + 16, left : left + 16][:, ::step], found)
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert {step for _, _, step in seen} == {1, -1}
    assert {top for top, _, _ in seen} == set(range(9)) == {left for _, left, _ in seen}


def test_every_epoch_has_each_image_once_in_a_new_order():
    epochs = [
        np.concatenate([batch["label"] for batch in take(batches, 3)])
        for batches in [train(source_of(photos(12)))]
        for _ in range(3)
    ]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_incomplete_batch_is_dropped():
    batches = take(train(source_of(photos(11))), 6)
    assert all(len(batch["label"]) == 4 for batch in batches)
    assert len({label for batch in batches[:2] for label in batch["label"]}) == 8


def test_augmentation_differs_between_epochs():
    source = source_of(photos(4))
    first, second = (batch["image"][np.argsort(batch["label"])] for batch in take(train(source), 2))
    assert not np.array_equal(first, second)


def test_deterministic_from_the_seed():
    source = source_of(photos(12))
    batches = take(train(source, seed=5), 7)
    assert_same(batches, take(train(source, seed=5), 7))
    other = take(train(source, seed=6), 7)
    assert any(
        not np.array_equal(a["label"], b["label"]) for a, b in zip(batches, other, strict=False)
    )


@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_exact_resume(done):
    source = source_of(photos(14))
    batches = train(source)
    take(batches, done)
    state = json.loads(json.dumps(batches.get_state()))
    expected = take(batches, 6)
    resumed = train(source)
    resumed.set_state(state)
    assert_same(take(resumed, 6), expected)


def test_fewer_images_than_a_batch():
    with pytest.raises(DataError, match="3 images, fewer than one batch of 4: .* at most 3"):
        train(source_of(photos(3)))


def test_eval_in_order_with_a_masked_end():
    images = photos(10)
    batches = list(pipeline.eval_batches(source_of(images), batch_size=4, image_size=8, **PLAIN))
    assert [batch["image"].shape for batch in batches] == [(4, 8, 8, 3)] * 3
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.dtype == bool and mask.tolist() == [True] * 10 + [False] * 2
    np.testing.assert_array_equal(
        np.concatenate([batch["label"] for batch in batches]), [*range(10), 0, 0]
    )
    found = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_allclose(found[:10], images, atol=1e-3)
    assert not found[10:].any()


def test_eval_without_a_rest_has_no_extra_batch():
    batches = list(pipeline.eval_batches(source_of(photos(8)), batch_size=4, image_size=8))
    assert len(batches) == 2 and all(batch["mask"].all() for batch in batches)


def test_resize_is_bicubic():
    images = photos(2, height=6, width=10)
    (batch,) = pipeline.eval_batches(source_of(images), batch_size=2, image_size=16, **PLAIN)
    expected = [cv2.resize(image, (16, 16), interpolation=cv2.INTER_CUBIC) for image in images]
    np.testing.assert_allclose(batch["image"], expected, atol=1e-3)


def test_grey_image_becomes_three_equal_channels():
    grey = photos(1)[0, :, :, :1]
    source = Memory([{"image": cv2.imencode(".png", grey)[1].tobytes(), "label": 0}])
    (batch,) = pipeline.eval_batches(source, batch_size=1, image_size=8, **PLAIN)
    np.testing.assert_allclose(batch["image"][0], np.repeat(grey, 3, axis=2), atol=1e-3)


def test_unreadable_image():
    source = Memory([{"image": b"no image", "label": 7}])
    with pytest.raises(DataError, match=r"label 7, 8 bytes"):
        next(pipeline.eval_batches(source, batch_size=1, image_size=8))
