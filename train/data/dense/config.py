"""Which images detection and segmentation learn from."""

import dataclasses

from train.data.dense.transforms import MULTIPLE
from train.hosts.fields import SHARE, check, expand, path_field

Shape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class DetectionData:
    """Images with boxes, and masks where the model finds masks, in COCO's format.

    Attributes:
      path: folder of the data set, as COCO's archives unpack.
      train_annotations: a file of annotations, in `path`.
      train_images: the folder, in `path`, that its file names are in.
      eval_annotations: as `train_annotations`.
      eval_images: as `train_images`.
      keep_empty: whether images without objects are trained on.
      scale: longest and shortest side that images are resized to fit, the ratio kept.
      shapes: height and width that batches are padded to, multiples of 32; each takes the smallest
        that holds it, and a step is compiled for each.
      own_shapes: whether evaluation pads each image to its own multiples of 32, as the official
        code does, and compiles for each such size; otherwise to `shapes`, for which position
        embeddings are resized to more columns than the image has.
      flip: probability of a flip from left to right.
    """

    path: str = path_field("data/coco")
    train_annotations: str = path_field("annotations/instances_train2017.json", inside=True)
    train_images: str = path_field("train2017", inside=True)
    eval_annotations: str = path_field("annotations/instances_val2017.json", inside=True)
    eval_images: str = path_field("val2017", inside=True)
    keep_empty: bool = True
    scale: Shape = (1333, 800)
    shapes: tuple[Shape, ...] = ((800, 1344), (1344, 800))
    own_shapes: bool = True
    flip: float = 0.5

    def __post_init__(self) -> None:
        expand(self)
        _check_sides("data.scale", self.scale, 1)
        if not self.shapes:
            raise ValueError("data.shapes is empty; give heights and widths, as 800 1344.")
        for shape in self.shapes:
            _check_sides("data.shapes", shape, MULTIPLE)
        check(self, "data.", SHARE, "flip")


@dataclasses.dataclass(frozen=True)
class SegmentationData:
    """Images with a class for each pixel.

    Attributes:
      path: folder of the data set: ADEChallengeData2016 as its archive unpacks, or with
        `class_names` any that has the folders below in `images` and `labels`.
      train_split: the folder of the images to train on.
      eval_split: the folder of those to measure on.
      class_names: None is ADE20K, whose label images call no class 0; otherwise names in the order
        of the values in the label images, from 0, where 255 is no class.
      scale: longest and shortest side that images are resized to fit, the ratio kept; in training,
        times 0.5 to 2.
      crop: height and width of the random parts that are trained on, multiples of 32.
      window: height and width, multiples of 32, of the parts that evaluation looks at, whose
        logits are averaged; None: images as they are.
      stride: rows and columns from window to window.
    """

    path: str = path_field("data/ADEChallengeData2016")
    train_split: str = "training"
    eval_split: str = "validation"
    class_names: tuple[str, ...] | None = None
    scale: Shape = (2048, 512)
    crop: Shape = (512, 512)
    window: Shape | None = None
    stride: Shape | None = None

    def __post_init__(self) -> None:
        expand(self)
        _check_sides("data.scale", self.scale, 1)
        _check_sides("data.crop", self.crop, MULTIPLE)
        if self.window is None and self.stride is None:
            return
        if self.window is None or self.stride is None:
            raise ValueError(
                f"data.window is {self.window} and data.stride is {self.stride}; give both, or "
                "neither."
            )
        _check_sides("data.window", self.window, MULTIPLE)
        _check_sides("data.stride", self.stride, 1)
        if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
            raise ValueError(
                f"data.stride is {self.stride} and data.window is {self.window}; windows must meet "
                "or overlap, so the stride must be at most the window."
            )


def _check_sides(name: str, sides: Shape, multiple: int) -> None:
    if any(side < multiple or side % multiple for side in sides):
        kind = f"multiples of {multiple}" if multiple > 1 else "at least 1"
        raise ValueError(f"{name} has {sides[0]} x {sides[1]}; both sides must be {kind}.")
