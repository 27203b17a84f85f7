"""What a run is made of: frozen dataclasses, filled by a config file and the command line.

Each part of the package keeps its own settings; they come together here.
"""

import dataclasses

from train.augment.config import AugmentConfig
from train.data.config import DataConfig
from train.engine.config import OptimConfig
from train.hosts.fields import AT_LEAST_1, check
from train.tasks.config import ModelConfig, TaskConfig

__all__ = ["AugmentConfig", "Config", "DataConfig", "ModelConfig", "OptimConfig"]


@dataclasses.dataclass(frozen=True)
class Config(TaskConfig):
    """One run: its task, and what happens how often.

    Attributes:
      evaluate_every: epochs between evaluations; the end is evaluated in any case.
      checkpoint_every: steps between checkpoints.
      keep_checkpoints: how many of the last checkpoints stay, beside the best one.
      log_every: steps between lines of the log.
    """

    evaluate_every: int = 1
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    log_every: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = "evaluate_every", "checkpoint_every", "keep_checkpoints", "log_every"
        check(self, "", AT_LEAST_1, *fields)
