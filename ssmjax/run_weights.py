"""Which weight file is meant where the folder of a run is named."""

from collections.abc import Callable
from pathlib import Path

# What `train.finetune` leaves, in the order in which they are taken.
LAST, BEST = "weights.safetensors", "best.safetensors"


def weight_file(path: Path, tell: Callable[[str], None]) -> Path:
    """A weight file as it is; of a run's folder the one of its end, or else of its best epoch.

    Args:
      path: of either.
      tell: gets a sentence on which one is taken of a folder.

    Raises:
      ValueError: a folder without either.
    """
    if not path.is_dir():
        return path
    if (path / LAST).is_file():
        tell(f"taking {path / LAST}")
        return path / LAST
    if (path / BEST).is_file():
        tell(f"taking {path / BEST}, of the best epoch so far: the run there has not ended")
        return path / BEST
    if (path / "checkpoints").is_dir():
        raise ValueError(
            f"The run in {path} was stopped before its first evaluation, so that it has no weight "
            "file yet; go on with train.finetune and --resume auto."
        )
    raise ValueError(
        f"The folder {path} has no {LAST}; give a weight file, or the workdir of a run."
    )
