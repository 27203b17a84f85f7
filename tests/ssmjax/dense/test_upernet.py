"""UperNet: stages, losses and a training step against official numbers."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssmjax.convert.load import table
from ssmjax.dense.geometry.resize import resize
from ssmjax.dense.registry import create_model
from ssmjax.dense.upernet import classify
from ssmjax.models.run import Run
from tests.oracles import downstream as golden
from tests.ssmjax.dense import whole
from tests.variants import in_all_variants

TINY = golden.names("upernet_tiny_*")


@whole.jitted
def evaluated(model, images, labels):
    maps = model.backbone(images, Run()).maps
    logits = {
        "ppm_bottleneck": model.head.pyramid(maps[-1]),
        "decode_logits": model.head.classes(model.head(maps)),
        "aux_logits": model.auxiliary.classes(model.auxiliary(maps)),
        "whole.logits_input_size": model(images),
    }
    return logits, model.losses(images, labels, train=False)


def labels_of(case):
    """As the fixture's words have them."""
    rule = re.search(r"mod (\d+), the value (\d+)", case.about["gt"])
    assert rule is not None
    modulus, ignored = map(int, rule.groups())
    B, height, width, _ = case.images.shape
    b, y, x = np.ogrid[:B, :height, :width]
    labels = (5 * (y // 16) + 3 * (x // 16) + 7 * b) % modulus
    return np.where(labels == ignored, 255, labels)


@functools.cache
def loaded(name):
    """(case, its model)."""
    case = golden.load(name)
    return case, whole.model_of(case)


def _check(name):
    case, model = loaded(name)
    (got, losses), _ = evaluated(model, case.images, labels_of(case))
    logits = got["whole.logits_input_size"]
    probabilities = jax.nn.softmax(resize(logits, tuple(case.about["images"][0]["ori_shape"])))
    case.check(got | {"whole.prob": probabilities})
    chex.assert_trees_all_equal(probabilities.argmax(axis=-1), case.want["whole.argmax"])
    whole.check_losses(losses, case.about["scalars"]["eval_bn_losses"])


@pytest.mark.parametrize("name", TINY)
def test_official(name):
    _check(name)
    case, model = loaded(name)
    crop, stride = re.findall(r"\((\d+), (\d+)\)", case.about["tests"])
    window, step = (tuple(map(int, pair)) for pair in (crop, stride))
    slid, _ = whole.jitted(lambda model, images: model.slide(images, window, step))(
        model, case.images
    )
    case.check({"slide.logits": slid})


@pytest.mark.slow
class TestVariants(chex.TestCase):
    @in_all_variants
    def test_official(self):
        case, model = loaded(TINY[0])
        logits = self.variant(lambda model, images: model(images))(model, case.images)
        case.check({"whole.logits_input_size": logits})


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.names("upernet_l1_*"))
def test_official_of_published_size(name):
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_training_step(name):
    case, model = loaded(name)
    losses, gradients, statistics = whole.step(model, case.images, jnp.asarray(labels_of(case)))
    whole.check_losses(losses, case.about["scalars"]["train_bn_losses"])
    entries = table(model.config)
    whole.check_gradients(case, gradients, entries)
    whole.check_statistics(case, statistics, entries)


def test_dropout_takes_whole_channels():
    class Head:
        def __call__(self, maps, train):
            return maps

        def classes(self, x):
            return x

    maps, key = jnp.ones((3, 4, 5, 50)), jax.random.key(0)
    chex.assert_trees_all_equal(classify(Head(), maps), maps)
    dropped = np.asarray(classify(Head(), maps, train=True, rate=0.2, key=key))
    chex.assert_trees_all_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    channels = dropped[:, 0, 0]
    assert set(channels.ravel().tolist()) == {0, 1.25}
    assert (channels[0] != channels[1]).any() and 0.7 < (channels > 0).mean() < 0.9


def test_training_needs_a_key():
    model = nnx.eval_shape(lambda: create_model("upernet_plainmamba_l1", drop_path_rate=0))
    with pytest.raises(ValueError, match="dropout needs a key"):
        model.losses(jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 32, 32), int))


def test_whole_images_are_windows():
    case, model = loaded(TINY[0])
    images = jnp.asarray(case.images[:1, :64, :64])
    run = jax.jit(lambda model: (model(images), model.slide(images, (64, 96), (32, 32))))
    at_once, slid = run(model)
    chex.assert_trees_all_close(slid, at_once, rtol=1e-7, atol=1e-6)
