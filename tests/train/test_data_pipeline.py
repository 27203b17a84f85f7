"""Batches: which photos, what becomes of them, resume, processes, workers and unreadable photos."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import chex
import cv2
import numpy as np
import pytest
from scipy import stats

from train.augment.recipe import make_recipe
from train.config import AugmentConfig
from train.data import pipeline
from train.data.fetching.fetch import DataError
from train.data.sources.source import Split

AUGMENTED = AugmentConfig(crop="random_resized", flip=0.5, randaugment="rand-m9-mstd0.5-inc1")


class Memory(list):
    """Encoded examples in memory."""

    def __getitems__(self, keys):
        return [self[key] for key in keys]


class Deadly(Memory):
    """Ends the process that reads it."""

    def __getitems__(self, keys):
        os._exit(1)


def photos(count: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def split_of(images: np.ndarray, unreadable=()) -> Split:
    """The label of photo i is i + 100."""
    files = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
    for index in unreadable:
        files[index] = files[index][:-20]
    examples = ({"image": file, "label": 100 + index} for index, file in enumerate(files))
    return Split(Memory(examples), ("one", "two"), 'small, split "train"')


def train(split, *, batch_size=4, size=(8, 8), seed=0, augment=AugmentConfig(), **options):
    return pipeline.train_batches(
        split,
        recipe=make_recipe(augment, size, mean=(0.5, 0.5, 0.5)),
        batch_size=batch_size,
        seed=seed,
        **options,
    )


def evaluate(split, batch_size=4, size=(8, 8), **options):
    return list(pipeline.eval_batches(split, batch_size=batch_size, size=size, **options))


def take(batches, count):
    return list(itertools.islice(batches, count))


def rows(batches, key) -> np.ndarray:
    return np.concatenate([batch[key] for batch in batches])


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == {"image", "label", "index", "mask"}
        chex.assert_trees_all_equal(batch, other, strict=True)


def test_values_without_augmentation():
    images = photos(10)
    for batch in take(train(split_of(images)), 5):
        assert [batch[key].dtype for key in batch] == [np.uint8, np.int32, np.int64, bool]
        chex.assert_trees_all_equal(batch["image"], images[batch["index"]])
        chex.assert_trees_all_equal(batch["label"], batch["index"] + 100)
        assert batch["mask"].shape == (4,) and batch["mask"].all()


def test_augmentation_is_a_crop_of_the_mirrored_image_or_its_flip():
    images = photos(80, height=16, width=16)
    augment = AugmentConfig(crop="shift", flip=0.5)
    batch = next(train(split_of(images), batch_size=80, size=(16, 16), augment=augment))
    seen = set()
    for found, index in zip(batch["image"], batch["index"], strict=True):
        padded = np.pad(images[index], [(4, 4), (4, 4), (0, 0)], mode="reflect")
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


def test_every_epoch_has_each_photo_once_in_any_order():
    order = rows(take(train(split_of(photos(8, 1, 1)), batch_size=8, size=(1, 1)), 400), "index")
    epochs = order.reshape(400, 8)
    assert (np.sort(epochs) == np.arange(8)).all()
    # Each photo is as often in each place, and after each other photo.
    for places in epochs.T:
        assert stats.chisquare(np.bincount(places)).pvalue > 1e-3
    assert stats.chisquare(np.bincount((epochs[:, 1] - epochs[:, 0]) % 8)[1:]).pvalue > 1e-3


def test_orders_of_two_seeds_have_nothing_in_common():
    split = split_of(photos(20))
    orders = [
        rows(take(train(split, seed=seed, batch_size=20), 6), "index").reshape(6, 20)
        for seed in (0, 1)
    ]
    assert len({tuple(order) for order in np.concatenate(orders)}) == 12


def test_incomplete_batch_is_dropped():
    split = split_of(photos(11))
    assert pipeline.epoch_steps(split, 4) == 2
    batches = take(train(split), 6)
    assert all(batch["index"].shape == (4,) for batch in batches)
    epochs = rows(batches, "index").reshape(3, 8)
    assert all(len(set(epoch)) == 8 for epoch in epochs)


def test_repeated_augmentation():
    split = split_of(photos(12, 40, 40))
    repeated = AugmentConfig(crop="random_resized", repeats=3)
    batches = take(train(split, batch_size=6, augment=repeated), 24)
    epochs = rows(batches, "index").reshape(12, 4, 3)
    assert (epochs == epochs[..., :1]).all()
    assert all(len(set(epoch)) == 4 for epoch in epochs[..., 0])
    assert set(epochs.flat) == set(range(12))
    assert len({image.tobytes() for image in rows(batches, "image")}) == 144


@pytest.mark.parametrize("done", [1, 3, 5])
def test_a_run_goes_on_at_any_batch(done):
    split = split_of(photos(14, 16, 16))
    batches = take(train(split, augment=AUGMENTED), done + 5)
    assert_same(take(train(split, augment=AUGMENTED, first=done), 5), batches[done:])


def test_photos_are_augmented_anew_in_each_epoch_row_and_seed():
    split = split_of(photos(4, 16, 16))
    augment = AugmentConfig(crop="random_resized")
    batches = [
        batch for seed in (0, 1) for batch in take(train(split, augment=augment, seed=seed), 3)
    ]
    assert len({image.tobytes() for image in rows(batches, "image")}) == 24


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("unreadable", [(), (1, 2, 3, 7)])
def test_processes_share_each_batch(count, unreadable):
    split = split_of(photos(10, 16, 16), unreadable)
    whole = take(train(split, augment=AUGMENTED), 6)
    parts = [
        take(train(split, augment=AUGMENTED, process=(number, count)), 6) for number in range(count)
    ]
    assert all(len(batch["label"]) == 4 // count for part in parts for batch in part)
    joined = [
        {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        for batches in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_unreadable_photo_gives_way_to_the_next_readable_row():
    images = photos(8)
    unreadable = {2, 5, 6}
    for batch in take(train(split_of(images, unreadable), batch_size=8), 20):
        index = batch["index"].tolist()
        assert sorted(index) == list(range(8))
        assert batch["mask"].tolist() == [photo not in unreadable for photo in index]
        for row, image, label in zip(range(8), batch["image"], batch["label"], strict=True):
            shown = next(p for p in index[row:] + index[:row] if p not in unreadable)
            assert label == 100 + shown
            chex.assert_trees_all_equal(image, images[shown])


def test_batch_without_a_readable_photo():
    with pytest.raises(DataError, match='Not one photo of batch 0 of small, split "train" can be'):
        next(train(split_of(photos(4), range(4))))


def test_eval_in_order_with_a_masked_end():
    images = photos(10)
    batches = evaluate(split_of(images))
    assert [batch["image"].shape for batch in batches] == [(4, 8, 8, 3)] * 3
    assert rows(batches, "mask").tolist() == [True] * 10 + [False] * 2
    assert rows(batches, "index").tolist() == [*range(10), -1, -1]
    assert rows(batches, "label").tolist() == [*range(100, 110), 0, 0]
    found = rows(batches, "image")
    chex.assert_trees_all_equal(found[:10], images)
    assert not found[10:].any()


def test_eval_without_a_rest_has_no_extra_batch():
    batches = evaluate(split_of(photos(8)))
    assert len(batches) == 2 and all(batch["mask"].all() for batch in batches)


def test_eval_takes_the_middle():
    images = photos(2, height=16, width=24)
    (batch,) = evaluate(split_of(images), batch_size=2, size=(8, 8), crop_pct=0.5)
    chex.assert_trees_all_equal(batch["image"], images[:, 4:12, 8:16])


def test_eval_masks_unreadable_photos():
    batches = evaluate(split_of(photos(5), unreadable=[1, 4]))
    assert rows(batches, "mask").tolist() == [True, False, True, True, *[False] * 4]
    assert rows(batches, "index").tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert not rows(batches, "image")[[1, 4]].any()


def test_eval_processes_get_equally_many_batches():
    split = split_of(photos(9))  # In the last of three batches the second process has no photo.
    whole, *parts = (evaluate(split, process=process) for process in [(0, 1), (0, 2), (1, 2)])
    joined = [
        {key: np.concatenate([first[key], second[key]]) for key in first}
        for first, second in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.slow
def test_workers_make_the_same_batches_in_the_same_order_and_end():
    split = split_of(photos(14, 16, 16), unreadable=[3])
    expected = take(train(split, augment=AUGMENTED, first=2), 7)
    batches = train(split, augment=AUGMENTED, first=2, workers=2)
    assert isinstance(batches, Generator)
    assert_same(take(batches, 7), expected)
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_errors_in_workers_are_the_same_sentences():
    with pytest.raises(DataError, match="Not one photo of batch 0 of small"):
        next(train(split_of(photos(4), range(4)), workers=1))
    deadly = Split(Deadly(range(4)), (), "deadly")
    with pytest.raises(DataError, match="has failed .* take fewer workers"):
        next(train(deadly, workers=1))
    assert not multiprocessing.active_children()


ENDLESS = """
import multiprocessing, time, test_data_pipeline as test
if __name__ == "__main__":
    next(batches := test.train(test.split_of(test.photos(8)), workers=1))
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_workers_end_with_a_killed_process(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, script]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    pytest.fail("The worker outlived the process that trains.")


def test_impossible_arguments():
    split = split_of(photos(3))
    with pytest.raises(DataError, match='"train" has 3 photos, fewer than .* at most 3'):
        train(split)
    with pytest.raises(ValueError, match="batch size is 3; it must be a multiple of the 2"):
        train(split, batch_size=3, process=(0, 2))
    with pytest.raises(ValueError, match="seed is -1; it must be from 0"):
        train(split, batch_size=3, seed=-1)
    with pytest.raises(ValueError, match='RandAugment "rand-m9" is incomplete'):
        train(split, batch_size=3, augment=AugmentConfig(randaugment="rand-m9"))
