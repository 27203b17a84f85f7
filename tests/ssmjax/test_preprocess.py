"""How images are normalised, and that weight files keep saying it as they always have."""

import json

import chex
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ssmjax.preprocess import IMAGENET, PLAIN, Preprocessing
from ssmjax.weights import KEY, Metadata, read_metadata, save_weights
from tests.ssmjax.test_registry import NAME, small

HOW = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 0.9)


@pytest.mark.parametrize("how", [HOW, PLAIN, IMAGENET])
def test_normalising(how):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    got = how.normalise(images)
    assert isinstance(got, np.ndarray) and got.dtype == np.float32
    want = (images / 255 - how.mean) / how.std
    chex.assert_trees_all_close(got, want.astype(np.float32), rtol=0, atol=1e-6)
    traced = jax.jit(how.normalise)(images)
    chex.assert_type(traced, np.float32)
    chex.assert_trees_all_close(traced, got, rtol=1e-6, atol=1e-6)


def test_weight_files_are_written_as_before(tmp_path):
    path, classes = tmp_path / "a.safetensors", ("a", "b", "c")
    save_weights(path, small(), Metadata(NAME, {"depth": 2}, classes, HOW))
    with safetensors.safe_open(path, "numpy") as file:
        fields = json.loads(file.metadata()[KEY])
    assert list(fields) == ["model", "config", "class_names", "mean", "std", "crop_pct"]
    assert fields["mean"] == [0.4, 0.5, 0.6] and fields["crop_pct"] == 0.9
    assert read_metadata(path) == Metadata(NAME, {"depth": 2}, classes, HOW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop_pct": None}, None),
        ({"mean": None}, "'mean'"),
        ({"std": None}, "'std'"),
        ({"gamma": 2}, "gamma"),
    ],
)
def test_fields_that_older_and_newer_files_have(tmp_path, change, said):
    fields = {"model": NAME, "config": {}, "class_names": [], "mean": [0.5] * 3, "std": [0.5] * 3}
    fields = {name: value for name, value in (fields | change).items() if value is not None}
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({}, path, metadata={KEY: json.dumps(fields)})
    if said is None:
        assert read_metadata(path).preprocessing == PLAIN
    else:
        with pytest.raises(ValueError, match=f"does not know .*{said}"):
            read_metadata(path)
