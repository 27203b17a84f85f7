"""Reads the golden fixtures of the dense tasks (official numbers, tests/golden/downstream)."""

import json
import sys
from typing import NamedTuple

import numpy as np

from tests.golden import recipe
from tests.oracles import golden
from tests.oracles.compare import assert_close

sys.modules.setdefault("recipe", recipe)  # As the file imported next calls it.
from tests.golden.downstream import recipe_downstream  # noqa: E402

FOLDER = golden.FOLDER / "downstream"
# A float32 run may be so many times as far off as the official code's own was.
NOISE = 10


class Case(NamedTuple):
    name: str
    about: dict  # The fixture's JSON.
    want: dict
    manifest: list  # [[official name, shape, dtype, ...], ...]
    images: np.ndarray  # NHWC, zero beyond each image's own size

    @property
    def backbone(self) -> dict:
        return self.about["config"]["backbone"]

    def state(self, part: str = "") -> dict:
        """{official name: float32 array, PyTorch layout} of what begins with `part`."""
        entries = [entry for entry in self.manifest if entry[0].startswith(part)]
        return recipe_downstream.state_dict(self.about["seed"], entries)

    def check(self, got: dict, *, exact: bool = False):
        """Stages by name against the fixture; `exact`: of a float64 run, which are rounded."""
        for name, array in got.items():
            about, want = self.about["arrays"][name], self.want[name]
            array = np.asarray(array)
            assert list(array.shape) == about["shape"], f"{name}: shape {array.shape}"
            if want.shape != array.shape:
                array = array.ravel()[np.arange(want.size) * array.size // want.size]
            tolerance = 1e-6 if exact else max(NOISE * about["float32_noise"], 1e-6)
            assert_close(array, want, tolerance, name)


def names(pattern: str) -> list[str]:
    return sorted(path.stem for path in FOLDER.glob(f"{pattern}.json"))


def manifest(name: str) -> dict:
    """Names and shapes of a published state_dict, as `maskrcnn_l1`."""
    return json.loads((FOLDER / f"manifest_{name}.json").read_text())


def load(name: str) -> Case:
    about = json.loads((FOLDER / f"{name}.json").read_text())
    entries = about["manifest"]
    if isinstance(entries, str):  # The name of a file.
        entries = json.loads((FOLDER / entries).read_text())["manifest"]
    images = recipe.images(about["seed"], about["input"]["shape"])
    for image, sizes in zip(images, about["images"], strict=True):
        height, width = sizes["img_shape"]
        image[height:] = image[:, width:] = 0
    assert recipe.crc(images) == about["input"]["crc32_after_zeroing"]
    return Case(name, about, golden.arrays(f"downstream/{name}"), entries, images)
