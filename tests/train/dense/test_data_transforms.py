"""Image transforms against the official pipeline's numbers."""

import chex
import cv2
import numpy as np
import pytest

from ssmjax.photos import fitting
from train.data.dense import transforms
from train.data.dense.batches import normalise


@pytest.mark.parametrize(("name", "scale"), [("coco", (1333, 800)), ("ade", (2048, 512))])
def test_sizes(units, name, scale):
    sizes = [fitting(height, width, scale) for height, width in units["geom.in_hw"].tolist()]
    chex.assert_trees_all_equal(np.array(sizes), units[f"geom.{name}_resized_hw"])
    padded = [transforms.padded(*size) for size in sizes]
    want = "padded" if name == "coco" else "aligned"
    chex.assert_trees_all_equal(np.array(padded), units[f"geom.{name}_{want}_hw"])


def test_resize_is_that_of_opencv_to_the_last_bit(units):
    image = units["pipe.image_bgr_u8"]
    height, width = image.shape[:2]
    size = fitting(height, width, (266, 160))
    assert size == tuple(units["pipe.resized_shape"][:2])
    resized = transforms.resize(image, size)
    chex.assert_trees_all_equal(resized.ravel()[::37], units["pipe.resized_sub"])
    factor = transforms.scale_factor(image.shape[:2], size)
    chex.assert_trees_all_equal(factor, units["pipe.scale_factor"])


def test_boxes(units):
    h, w = map(int, units["pipe.resized_shape"][:2])
    boxes = transforms.resize_boxes(units["pipe.boxes"], units["pipe.scale_factor"], (h, w))
    assert boxes.dtype == np.float32 and boxes[:, [0, 2]].max() <= w and boxes[:, 1::2].max() <= h
    chex.assert_trees_all_equal(transforms.flip_boxes(boxes, w), units["pipe.final_boxes"])


def test_normalising_and_padding(units):
    image = units["pipe.image_bgr_u8"][..., ::-1]
    h, w = map(int, units["pipe.resized_shape"][:2])
    # What lies in the padding before must not matter.
    batch = np.full((1, *units["pipe.final_shape"]), 77, np.uint8)
    batch[0, :h, :w] = transforms.resize(np.ascontiguousarray(image), (h, w))[:, ::-1]
    got = np.asarray(normalise(batch, np.array([[h, w]], np.int32)))
    chex.assert_trees_all_close(got.ravel()[::53], units["pipe.final_sub"], rtol=0, atol=1e-6)
    assert not got[:, h:].any() and not got[:, :, w:].any()


def test_random_scale():
    rng = np.random.default_rng(0)
    scales = np.array([transforms.random_scale((2048, 512), rng) for _ in range(500)])
    assert scales[:, 1].min() in range(256, 262) and scales[:, 1].max() in range(1016, 1025)
    # Both sides by one ratio, rounded down.
    assert set(scales[:, 0] - 4 * scales[:, 1]) <= {0, 1, 2, 3}


def crops(labels, size, count):
    rng = np.random.default_rng(1)
    return [transforms.random_crop(labels, size, rng) for _ in range(count)]


def test_random_crop_is_anywhere_and_at_most_the_image():
    labels = np.indices((7, 9)).sum(0).astype(np.uint8) % 2
    parts = crops(labels, (5, 20), 200)
    assert {(part[0].start, labels[part].shape) for part in parts} == {
        (top, (5, 9)) for top in range(3)
    }


def share_of_one_class(labels, size):
    """How often the largest class of a crop has at least 75 %."""
    counts = [np.bincount(labels[p].ravel(), minlength=256)[:255] for p in crops(labels, size, 400)]
    return np.mean([count.max() >= 0.75 * count.sum() for count in counts])


def test_random_crop_avoids_one_class():
    labels = np.zeros((40, 40), np.uint8)
    labels[30:] = 1
    # Of 31 tops, those of 23 to 27 have 3 to 7 rows of class 1; the last of 11 draws is kept.
    tops = [part[0].start for part in crops(labels, (10, 40), 2000)]
    bad = np.mean([not 23 <= top <= 27 for top in tops])
    chex.assert_trees_all_close(bad, (26 / 31) ** 11, rtol=1e-7, atol=0.04)
    # Without label is no class, and a single class never passes.
    labels[labels == 1] = 255
    assert share_of_one_class(labels, (10, 40)) == 1


class Chosen:
    """A generator that gives what it is told, each for one draw."""

    def __init__(self, *values):
        self.values = list(values)

    def integers(self, *bounds):
        value = self.values.pop(0)
        assert (0 if len(bounds) == 1 else bounds[0]) <= value < bounds[-1]
        return value

    def uniform(self, low, high):
        value = self.values.pop(0)
        assert low <= value <= high
        return value


def clipped(values):
    return np.clip(values, 0, 255).astype(np.uint8)


def test_distortion_step_by_step():
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    rng = Chosen(1, -31.5, 1, 1, 1.25, 1, 0.6, 1, -18)
    got = transforms.distort(image, rng)
    assert not rng.values
    want = clipped(clipped(image.astype(np.float32) - np.float32(31.5)) * np.float32(1.25))
    hsv = cv2.cvtColor(want, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = clipped(hsv[..., 1] * np.float32(0.6))
    hsv = cv2.cvtColor(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) - 18) % 180
    chex.assert_trees_all_equal(got, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def test_contrast_may_come_last_and_all_may_stay_out():
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    chex.assert_trees_all_equal(transforms.distort(image, Chosen(0, 0, 0, 0, 0)), image)
    got = transforms.distort(image, Chosen(0, 0, 0, 1, 10, 1, 0.5))
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 10) % 180
    chex.assert_trees_all_equal(got, clipped(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 0.5))


def test_hue_and_saturation_do_not_depend_on_the_order_of_channels():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    bgr = np.ascontiguousarray(image[..., ::-1])
    chex.assert_trees_all_equal(hsv, cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV))
    back = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    chex.assert_trees_all_equal(back, cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[..., ::-1])


def test_rows_have_generators_of_their_own():
    draws = {
        transforms.row_rng(seed, number, row).random()
        for seed in range(3)
        for number in range(3)
        for row in range(3)
    }
    assert len(draws) == 27
    assert transforms.row_rng(5, 6, 7).random() == transforms.row_rng(5, 6, 7).random()
