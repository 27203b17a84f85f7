"""What fields of configs have in common: rules that values keep, and paths.

In a path `~` is the home folder, and a relative one starts at the current folder. A config keeps
relative paths as they were given, for messages to name them so; the record of a run has them
absolute, so that the same data are the same from wherever a run is gone on with.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Rule = tuple[str, Callable[[Any], bool]]  # What messages ask for, and whether a value keeps it.
ABOVE_0: Rule = ("it must be above 0", lambda value: value > 0)
AT_LEAST_0: Rule = ("it must be at least 0", lambda value: value >= 0)
AT_LEAST_1: Rule = ("it must be at least 1", lambda value: value >= 1)
SHARE: Rule = ("it must be between 0 and 1", lambda value: 0 <= value <= 1)


def check(config: Any, part: str, rule: Rule, *fields: str) -> None:
    """Refuse values of a dataclass' fields that break a rule; those that are None keep every one.

    `part` is what messages write before a field's name, such as "optim."; it may be empty.

    Raises:
      ValueError: naming the first that breaks it.
    """
    words, keeps = rule
    for field in fields:
        value = getattr(config, field)
        if value is not None and not keeps(value):
            raise ValueError(f"{part}{field} is {value}; {words}.")


def path_field(default: str | None, *, inside: bool = False) -> Any:
    """A dataclass' field that is a path, as text; None where there is none.

    `inside` is of one that starts in another field's folder, unless it is absolute.
    """
    return dataclasses.field(default=default, metadata={"path": "inside" if inside else "whole"})


def expand(config: Any) -> None:
    """Replace `~` in the path fields of a dataclass, at the end of its construction."""
    for field in _fields(config, "whole", "inside"):
        if value := getattr(config, field):
            object.__setattr__(config, field, os.path.expanduser(value))


def absolute(value: Any) -> Any:
    """What `dataclasses.asdict` makes of a config, with absolute paths."""
    if dataclasses.is_dataclass(value):
        paths = _fields(value, "whole")
        content = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            n: absolute_path(v) if n in paths and v else absolute(v) for n, v in content.items()
        }
    if isinstance(value, Mapping):
        return {key: absolute(one) for key, one in value.items()}
    return [absolute(one) for one in value] if isinstance(value, list | tuple) else value


def _fields(config: Any, *kinds: str) -> set[str]:
    return {f.name for f in dataclasses.fields(config) if f.metadata.get("path") in kinds}


def absolute_path(path: str) -> str:
    """A path from the root folder on; `~` is the home folder."""
    path = os.path.expanduser(path)
    # After a link, the folder above is not what its name says.
    return os.path.realpath(path) if ".." in Path(path).parts else os.path.abspath(path)
