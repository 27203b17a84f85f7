r"""Make tiles of aerial photos in which every tree has a box, drawn by hand.

    python -m train.data.trees --path data/trees

The photos, at 10 cm a pixel, and their boxes are those that the PyPI package deepforest carries
for its own tests (Weinstein et al., doi 10.1111/2041-210X.13472); it is not installed. Four of its
photos have boxes:

  2019_YELL_2_528000_4978000_image_crop2.png  2299 x 2472 pixels  574 boxes  train
  OSBS_029.png                                 400 x 400           61         train
  SOAP_061.png                                 400 x 400           37         train
  2019_YELL_2_541000_4977000_image_crop.png   1249 x 1035         279         eval

Boxes are read from the XML file beside each photo: of the last one the package's example.csv has
79 only. SOAP_061 calls its trees dead or alive; here all are "tree". Its other photos have no
boxes, and the CSV files no others.

Tiles to train on overlap by half, those to measure on do not; what remains at the right and the
bottom is left out. A tree is in every tile that shows half of its box or more, cut at the border;
less than half of a tree is not marked. Tiles without trees are kept.

`path` gets `images/{train,eval}` and `annotations/{train,eval}.json` in COCO's format.
"""

import dataclasses
import xml.etree.ElementTree
from pathlib import Path

import numpy as np

from ssmjax import command_line
from train.data.decode import decode
from train.data.dense.coco_writer import CocoWriter, new_data_set
from train.data.fetching.wheel import Wheel, wheel_files

DEEPFOREST = Wheel(
    "deepforest", "2.1.0", "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
)
PHOTOS = {
    "train": ("2019_YELL_2_528000_4978000_image_crop2", "OSBS_029", "SOAP_061"),
    "eval": ("2019_YELL_2_541000_4977000_image_crop",),
}
_VISIBLE = 0.5


@dataclasses.dataclass(frozen=True)
class TreesOptions:
    """What to make.

    Attributes:
      path: a new folder; the download is kept beside it, in `downloads`.
      side: of the tiles, in pixels.
    """

    path: Path
    side: int = 192

    def __post_init__(self) -> None:
        if not 64 <= self.side <= 400:
            raise ValueError(f"side is {self.side}; it must be 64 to 400, which all photos have.")


def main() -> None:
    """The command."""
    make(command_line.parse(TreesOptions, description=__doc__ or ""))


def make(options: TreesOptions) -> None:
    """Make the data set, all of it or none.

    Raises:
      DataError: there is something in `path` already, the photos cannot be fetched, or the disk is
        full or not writable.
    """
    path, side = options.path, options.side
    with new_data_set(path) as folder:
        for split, names in PHOTOS.items():
            writer = CocoWriter(("tree",), folder / "images" / split)
            for image, boxes in labelled_photos(names, path.parent / "downloads"):
                step = side // 2 if split == "train" else side
                for tile, inside in tiles(image, boxes, side, step):
                    writer.add(tile, inside, [0] * len(inside))
            writer.save(folder / "annotations" / f"{split}.json")


def labelled_photos(names: tuple[str, ...], downloads: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Photos [H,W,3] uint8, RGB, with boxes [G,4] float64, (x1, y1, x2, y2).

    Raises: DataError as `wheel_files`.
    """
    paths = [f"deepforest/data/{name}" for name in names]
    files = wheel_files(
        DEEPFOREST, [f"{path}.{kind}" for path in paths for kind in ("png", "xml")], downloads
    )
    photos = []
    for path in paths:
        image = decode(files[f"{path}.png"])
        assert image is not None  # The wheel is verified, so its photos are sound.
        photos.append((image, boxes_of(files[f"{path}.xml"])))
    return photos


def boxes_of(content: bytes) -> np.ndarray:
    """[G,4] float64, (x1, y1, x2, y2), of annotations in the format of Pascal VOC."""
    root = xml.etree.ElementTree.fromstring(content)
    corners = [
        [float(box.findtext(name, "nan")) for name in ("xmin", "ymin", "xmax", "ymax")]
        for box in root.iter("bndbox")
    ]
    return np.array(corners, np.float64).reshape(-1, 4)


def tiles(
    image: np.ndarray, boxes: np.ndarray, side: int, step: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Squares of an image, row by row, each with the boxes of which it shows half or more.

    Args:
      image: [H,W,3] uint8.
      boxes: [G,4], (x1, y1, x2, y2).
      side: of the squares.
      step: from one to the next.

    Returns:
      [side,side,3] and [g,4] of each, the boxes in its own pixels and cut at its border.
    """
    (height, width), areas, found = image.shape[:2], _area(boxes), []
    for y in range(0, height - side + 1, step):
        for x in range(0, width - side + 1, step):
            inside = np.clip(boxes - [x, y, x, y], 0, side)
            seen = _area(inside) >= _VISIBLE * areas
            found.append((image[y : y + side, x : x + side], inside[seen]))
    return found


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


if __name__ == "__main__":
    command_line.run(main)
