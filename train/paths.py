"""Config fields that are paths: `~` is the home folder, and relative ones start at the current one.

A config keeps relative paths as they were given, for messages to name them so; the record of a run
has them absolute, so that the same data are the same from wherever a run is gone on with.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def path_field(default: str | None) -> Any:
    """A dataclass' field that is a path, as text; None where there is none."""
    return dataclasses.field(default=default, metadata={"path": True})


def expand(config: Any) -> None:
    """Replace `~` in the path fields of a dataclass, at the end of its construction."""
    for field in _fields(config):
        if value := getattr(config, field):
            object.__setattr__(config, field, os.path.expanduser(value))


def absolute(value: Any) -> Any:
    """What `dataclasses.asdict` makes of a config, with absolute paths."""
    if dataclasses.is_dataclass(value):
        paths = _fields(value)
        content = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            n: absolute_path(v) if n in paths and v else absolute(v) for n, v in content.items()
        }
    if isinstance(value, Mapping):
        return {key: absolute(one) for key, one in value.items()}
    return [absolute(one) for one in value] if isinstance(value, list | tuple) else value


def _fields(config: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(config) if field.metadata.get("path")}


def absolute_path(path: str) -> str:
    """A path from the root folder on; `~` is the home folder."""
    path = os.path.expanduser(path)
    # After a link, the folder above is not what its name says.
    return os.path.realpath(path) if ".." in Path(path).parts else os.path.abspath(path)
