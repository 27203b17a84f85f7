"""Settings of the optimisation."""

import dataclasses
from typing import Literal

from train.hosts.fields import ABOVE_0, AT_LEAST_0, SHARE, check

# What fields keep by themselves.
_RULES = (
    (ABOVE_0, "epochs", "batch_size", "lr", "clip", "steps"),
    (AT_LEAST_0, "min_lr", "warmup_lr", "warmup_steps", "weight_decay", "max_skipped"),
    (("it must be at least 0 and below 1", lambda v: 0 <= v < 1), "b2", "label_smoothing"),
    (SHARE, "distill"),
    (("choose above 0 to 1", lambda v: 0 < v <= 1), "layer_decay"),
    (("it must be between 0 and 1, as 0.999", lambda v: 0 < v < 1), "ema"),
)


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
      warmup_steps: steps of rising learning rate; give either these or `warmup_epochs`.
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
        for rule, *fields in _RULES:
            check(self, "optim.", rule, *fields)
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
