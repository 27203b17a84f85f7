"""What a run is made of: frozen dataclasses, filled by a config file and the command line."""

import dataclasses
import os
import runpy
from pathlib import Path
from typing import Literal, TypeVar

from ssmjax import PruneConfig
from train.data.cifar10 import CIFAR_MEAN, CIFAR_STD


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which model. A field that is None stays as registered, or as the weights say.

    Attributes:
      name: one of `ssmjax.list_models()`; None takes the one the weights name.
      weights: a safetensors file to start from; None starts from scratch.
    """

    name: str | None = None
    weights: str | None = None
    depth: int | None = None
    embed_dim: int | None = None
    d_state: int | None = None
    expand: int | None = None
    num_heads: int | None = None
    patch_size: int | None = None
    stride: int | None = None
    img_size: int | None = None
    drop_path_rate: float | None = None
    dtype: str | None = None

    def overrides(self) -> dict:
        """The fields of the model's own config that are set here."""
        fields = dataclasses.asdict(self)
        return {k: v for k, v in fields.items() if v is not None and k not in ("name", "weights")}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which photos.

    Attributes:
      name: `cifar10_photos`, which is fetched and prepared at first use, or any data set of images
        and labels that tensorflow-datasets has prepared in `data_dir`, such as `cifar10`.
      data_dir: folder of prepared data sets.
      train_split: as tensorflow-datasets writes splits, such as "train[:90%]".
      eval_split: as `train_split`.
      augment: random crops and flips in training.
      mean: per channel, on a scale of 0 to 1, for weights that carry none.
      std: as `mean`.
    """

    name: str = "cifar10_photos"
    data_dir: str = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    train_split: str = "train"
    eval_split: str = "test"
    augment: bool = True
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and a cosine to `min_lr`.

    Attributes:
      lr: peak learning rate.
      min_lr: learning rate at the end.
      epochs: passes over the training split; may be a fraction.
      warmup_epochs: epochs of rising learning rate, counted in `epochs`.
      batch_size: images a step.
      weight_decay: on matrices and kernels only.
      clip: largest gradient norm.
      label_smoothing: share of the target spread over all classes.
      distill: share of the loss that is the divergence from the outputs of the dense model that the
        run starts from (Hinton et al., arXiv 1503.02531); 0 follows the labels alone.
      ema: decay of the averaged parameters that are evaluated and saved; None evaluates the last.
    """

    lr: float = 1e-3
    min_lr: float = 1e-6
    epochs: float = 1.0
    warmup_epochs: float = 0.0
    batch_size: int = 64
    weight_decay: float = 0.05
    clip: float = 1.0
    label_smoothing: float = 0.0
    distill: float = 0.0
    ema: float | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
      model: which model and weights.
      data: which photos.
      optim: how to train.
      prune: what to prune; None trains the dense model.
      seed: of initialisation, order of the photos, augmentation and drop path.
      eval_batch_size: photos a step in evaluation.
      checkpoint_every: steps between checkpoints.
      log_every: steps between lines of the log.
      pictures: photos in the picture of kept tokens.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    prune: PruneConfig | None = None
    seed: int = 0
    eval_batch_size: int = 200
    checkpoint_every: int = 200
    log_every: int = 20
    pictures: int = 12

    def __post_init__(self) -> None:
        optim = self.optim
        positive = {
            "optim.epochs": optim.epochs,
            "optim.batch_size": optim.batch_size,
            "optim.lr": optim.lr,
            "optim.clip": optim.clip,
            "eval_batch_size": self.eval_batch_size,
            "checkpoint_every": self.checkpoint_every,
            "log_every": self.log_every,
            "pictures": self.pictures,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0.")
        if not 0 <= optim.warmup_epochs < optim.epochs:
            raise ValueError(
                f"optim.warmup_epochs is {optim.warmup_epochs}; it must be at least 0 and below "
                f"optim.epochs, {optim.epochs}."
            )
        if not 0 <= optim.label_smoothing < 1:
            raise ValueError(
                f"optim.label_smoothing is {optim.label_smoothing}; choose 0 to below 1."
            )
        if not 0 <= optim.distill <= 1:
            raise ValueError(f"optim.distill is {optim.distill}; choose 0 to 1.")
        if optim.distill and self.model.weights is None:
            raise ValueError(
                f"optim.distill is {optim.distill} without a model to follow; give model.weights."
            )
        if optim.ema is not None and not 0 < optim.ema < 1:
            raise ValueError(f"optim.ema is {optim.ema}; it must be between 0 and 1, as 0.999.")


Kind = TypeVar("Kind")


def load_config(path: str, kind: type[Kind]) -> Kind:
    """The `config = Config(...)`, or another kind named likewise, that a Python file defines.

    Raises:
      ValueError: no such file, a file that fails to run, or one that defines no such thing.
    """
    name = kind.__name__.lower()
    if not Path(path).is_file():
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py"))) or "none here"
        raise ValueError(f"There is no config file {path}; those in configs/: {known}.")
    try:
        config = runpy.run_path(path).get(name)
    except Exception as error:
        raise ValueError(f"The config file {path} fails: {error}") from error
    if not isinstance(config, kind):
        raise ValueError(
            f"{path} must define `{name} = {kind.__name__}(...)`, from {kind.__module__}."
        )
    return config


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a run lives.

    Attributes:
      config: a Python file that defines `config = Config(...)`, from `configs/`.
      workdir: folder for checkpoints, log, table, pictures and weights.
      resume: `auto` goes on from the workdir's newest checkpoint, if any; `never` refuses a
        workdir that already holds one.
    """

    config: str
    workdir: str
    resume: Literal["never", "auto"] = "never"
