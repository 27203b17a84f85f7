"""What a run is made of: frozen dataclasses, filled by a config file and the command line."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Literal

from ssmjax import PruneConfig
from train.augment import randaugment
from train.data.cifar10 import CIFAR_MEAN, CIFAR_STD
from train.data.dense_config import DetectionData, SegmentationData
from train.model_config import ModelConfig
from train.paths import expand, path_field


def _check(values: dict[str, Any], prefix: str, rule: str, good: Callable[[Any], bool]) -> None:
    """Refuse values that break a rule; raises ValueError."""
    for name, value in values.items():
        if not good(value):
            raise ValueError(f"{prefix}.{name} is {value}; it must be {rule}.".removeprefix("."))


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to a photo in training, in timm's terms and order; the defaults leave it as is.

    Attributes:
      crop: `resize` takes the whole photo; `shift` moves it by up to 4 pixels, the border mirrored;
        `random_resized` takes a random part, resized (bicubic).
      scale: smallest and largest share of the photo's area in a random part.
      flip: probability of a flip from left to right.
      randaugment: RandAugment as timm writes it, such as "rand-m9-mstd0.5-inc1"; None without.
      color_jitter: largest relative change of brightness, contrast and saturation.
      erase: probability that a random rectangle becomes noise.
      mixup: alpha of the beta distribution of mixup; 0 without.
      cutmix: as `mixup`, of cutmix; with both, each batch gets one of them, by a fair coin.
      repeats: times that each photo of an epoch is in it, augmented anew (repeated augmentation);
        the epoch has as many images, of fewer photos.
    """

    crop: Literal["resize", "shift", "random_resized"] = "resize"
    scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.0
    randaugment: str | None = None
    color_jitter: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"data.augment.scale is {self.scale}; give two shares above 0 and at most 1, the "
                "smaller one first."
            )
        shares = {name: getattr(self, name) for name in ("flip", "color_jitter", "erase")}
        _check(shares, "data.augment", "between 0 and 1", lambda value: 0 <= value <= 1)
        alphas = {"mixup": self.mixup, "cutmix": self.cutmix}
        _check(alphas, "data.augment", "at least 0", lambda value: value >= 0)
        if self.randaugment is not None:
            randaugment.parse(self.randaugment)
        _check({"repeats": self.repeats}, "data.augment", "at least 1", lambda v: v >= 1)


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
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ValueError(f"data.crop_pct is {self.crop_pct}; choose above 0 to 1, as 0.9.")
        _check({"max_unreadable": self.max_unreadable}, "data", "at least 0", lambda v: v >= 0)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and a schedule.

    Attributes:
      lr: peak learning rate.
      schedule: `cosine` falls to `min_lr` after the warm-up, which multiplies the others: from the
        first step, `full_cosine` and `linear` to `min_lr`, `step` to a tenth after `drop_epochs`.
      min_lr: learning rate at the end.
      drop_epochs: of the schedule `step`.
      epochs: passes over the training split; may be a fraction.
      steps: length of the run in steps; None is what `epochs` says.
      warmup_epochs: epochs of rising learning rate, counted in `epochs`.
      warmup_steps: the same in steps, in its place.
      warmup_lr: learning rate at the start of the warm-up.
      batch_size: images a step, on all devices together.
      accumulate: parts that a batch is worked through in, one after the other; needs less memory.
      batch_norm: whose images classifiers' batch norms train by; of dense models always `batch`.
      weight_decay: of classifiers, on matrices and kernels only; of dense models, on what the
        official recipes decay.
      b2: decay of AdamW's second moment.
      clip: largest gradient norm; None without limit.
      layer_decay: factor of the learning rate from each block to the one before it; None is 1.
      layer_decay_blocks: whether `layer_decay` slows blocks and embedding, or this alone, as much.
      frozen: parameters that stay as they are: beginnings of their dotted names, as "patch_embed".
      remat: recompute the blocks' insides in the backward pass; needs less memory, more time.
      label_smoothing: share of the target spread over all classes.
      distill: share of the loss that is the divergence from the outputs of the dense model that the
        run starts from (Hinton et al., arXiv 1503.02531); 0 follows the labels alone.
      ema: decay of the averaged parameters, which are saved, and measured beside those that are not
        averaged; None averages nothing.
      ema_warmup: whether that decay is (1 + step) / (10 + step) as long as this is less, so that an
        average forgets a fresh start: 0.99988 after 75,060 steps. Without, it is `ema` from the
        first step on, and what the run starts from keeps its share, as in timm's ModelEma.
        Statistics of batch norms are not averaged, as with mmcv's EMAHook.
      max_skipped: steps in a row that may be skipped because loss or gradients are not finite.
    """

    lr: float = 1e-3
    schedule: Literal["cosine", "full_cosine", "linear", "step"] = "cosine"
    min_lr: float = 1e-6
    drop_epochs: tuple[float, ...] = ()
    epochs: float = 1.0
    steps: int | None = None
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    warmup_lr: float = 0.0
    batch_size: int = 64
    accumulate: int = 1
    batch_norm: Literal["device", "batch"] = "device"
    weight_decay: float = 0.05
    b2: float = 0.99
    clip: float | None = 1.0
    layer_decay: float | None = None
    layer_decay_blocks: bool = True
    frozen: tuple[str, ...] = ()
    remat: bool = False
    label_smoothing: float = 0.0
    distill: float = 0.0
    ema: float | None = None
    ema_warmup: bool = True
    max_skipped: int = 10

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) for name in ("epochs", "batch_size", "lr")}
        positive |= {n: v for n in ("clip", "steps") if (v := getattr(self, n)) is not None}
        _check(positive, "optim", "above 0", lambda value: value > 0)
        names = ("min_lr", "warmup_lr", "warmup_steps", "weight_decay", "max_skipped")
        least = {name: getattr(self, name) for name in names}
        _check(least, "optim", "at least 0", lambda value: value >= 0)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"optim.warmup_epochs is {self.warmup_epochs}; it must be at least 0 and below "
                f"optim.epochs, {self.epochs}."
            )
        if (self.schedule == "step") != bool(self.drop_epochs):
            raise ValueError(
                f"optim.schedule is {self.schedule} and optim.drop_epochs is {self.drop_epochs}; "
                "give epochs with schedule step, and only then."
            )
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                f"optim.warmup_epochs is {self.warmup_epochs} and optim.warmup_steps is "
                f"{self.warmup_steps}; give one of them."
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"optim.accumulate is {self.accumulate}; it must divide optim.batch_size, "
                f"{self.batch_size}."
            )
        below = {"b2": self.b2, "label_smoothing": self.label_smoothing}
        _check(below, "optim", "at least 0 and below 1", lambda value: 0 <= value < 1)
        _check({"distill": self.distill}, "optim", "between 0 and 1", lambda value: 0 <= value <= 1)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay is {self.layer_decay}; choose above 0 to 1.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"optim.ema is {self.ema}; it must be between 0 and 1, as 0.999.")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Its data tell its task: classification, detection or segmentation.

    Attributes:
      model: which model and weights.
      data: which photos.
      optim: how to train.
      prune: what to prune; None trains the dense model.
      seed: of initialisation, order of the photos, augmentation and drop path.
      eval_batch_size: photos a step in evaluation.
      evaluate_every: epochs between evaluations; the end is evaluated in any case.
      checkpoint_every: steps between checkpoints.
      keep_checkpoints: how many of the last checkpoints stay, beside the best one.
      log_every: steps between lines of the log.
      pictures: photos in the picture of kept tokens.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig | DetectionData | SegmentationData = DataConfig()
    optim: OptimConfig = OptimConfig()
    prune: PruneConfig | None = None
    seed: int = 0
    eval_batch_size: int = 200
    evaluate_every: int = 1
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 20
    pictures: int = 12

    def __post_init__(self) -> None:
        names = ("evaluate_every", "checkpoint_every", "keep_checkpoints", "log_every", "pictures")
        positive = {name: getattr(self, name) for name in ("eval_batch_size", *names)}
        _check(positive, "", "at least 1", lambda value: value >= 1)
        if self.optim.distill and self.model.weights is None:
            raise ValueError(
                f"optim.distill is {self.optim.distill} without a model to follow; give "
                "model.weights."
            )
        if self.model.classifier is not None and self.model.weights is not None:
            raise ValueError(
                "model.classifier fills the backbone where there are no weights; give only one of "
                "model.classifier and model.weights."
            )
        if self.model.new_head and self.model.weights is None:
            raise ValueError("model.new_head is for weights; without them every head is new.")
