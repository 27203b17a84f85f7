"""The folder of a run: made when missing, and of one config only."""

import json
from pathlib import Path
from typing import Any

from ssmjax.atomic import replacing
from train.data.walk import check_name
from train.paths import absolute


def open_workdir(workdir: Path, config: Any, resume: str, *traces: str) -> None:
    """Create the folder and write `config.json` there.

    Args:
      workdir: the folder.
      config: the dataclass that the run follows.
      resume: `never` refuses a folder where a run has begun; `auto` goes on with it.
      traces: patterns of paths in the folder; if any exists, a run has begun.

    Raises:
      ValueError: the folder cannot be written, or holds a run that may not be gone on with, or
        one of another config.
    """
    check_name(str(workdir), workdir)
    record = workdir / "config.json"
    mine = json.dumps(absolute(config), indent=1)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        begun = any(path for trace in traces for path in workdir.glob(trace))
        if begun and resume == "never":
            raise ValueError(
                f"{workdir} already holds a run; go on with --resume auto, or choose another "
                "--workdir."
            )
        if begun and record.exists() and record.read_text() != mine:
            raise ValueError(
                f"{workdir} holds a run of another config (see {record}); choose another "
                "--workdir, or the same config."
            )
        with replacing(record) as file:
            file.write_text(mine)
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written ({error.strerror}); choose a folder of yours."
        ) from error
