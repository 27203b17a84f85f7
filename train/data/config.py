"""Settings of the data that classifiers learn from."""

import dataclasses
import os
from typing import Literal

from train.augment.config import AugmentConfig
from train.data.cifar10 import CIFAR_MEAN, CIFAR_STD
from train.hosts.fields import AT_LEAST_0, check, expand, path_field


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which photos, and what is done to them.

    Attributes:
      source: `tfds`, a data set that tensorflow-datasets has prepared; `folder`, a folder of
        photos.
      name: of the data set of source `tfds`: any of images and labels in `data_dir`, such as
        `imagenet2012`; `cifar10_photos` is fetched and prepared at first use.
      path: of the folder of source `folder`, which holds a folder per split, and in each a folder
        per class.
      data_dir: folder of prepared data sets; source `folder` is prepared there at first use.
      train_split: as tensorflow-datasets writes splits, such as "train[:90%]".
      eval_split: as `train_split`.
      augment: of the training photos.
      crop_pct: share of a photo's shorter side that the middle square of evaluation takes; None is
        what the weights say.
      mean: per channel, on a scale of 0 to 1, for weights that carry none.
      std: as `mean`.
      max_unreadable: so many photos may be unreadable; they are skipped and named.
    """

    source: Literal["tfds", "folder"] = "tfds"
    name: str = "cifar10_photos"
    path: str | None = path_field(None)
    data_dir: str = path_field(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    train_split: str = "train"
    eval_split: str = "test"
    augment: AugmentConfig = AugmentConfig()
    crop_pct: float | None = None
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD
    max_unreadable: int = 0

    def __post_init__(self) -> None:
        expand(self)
        if (self.source == "folder") != (self.path is not None):
            raise ValueError(
                f"data.source is {self.source} and data.path is {self.path}; "
                "give a path with source folder, and only then."
            )
        rule = "choose above 0 to 1, as 0.9", lambda value: 0 < value <= 1
        check(self, "data.", rule, "crop_pct")
        check(self, "data.", AT_LEAST_0, "max_unreadable")
