"""The folder of a run: made when missing, and of one config only."""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ssmjax.atomic import replacing
from train.data.sources.walk import check_name
from train.hosts.fields import absolute, absolute_path

# Fields that may differ where a run is gone on with. None changes what is learned; data may have
# moved to another folder.
FREE = (
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "eval_batch_size",
    "pictures",
    "data.path",
    "data.data_dir",
    "data.max_unreadable",
    "data.own_shapes",
    "optim.max_skipped",
    "optim.remat",
)
GROWING = ("optim.epochs", "optim.steps")  # May differ too, but not become less.
_FEW = 6  # Fields that a message names beside the first one.


class Difference(NamedTuple):
    """A field that two configs differ in.

    Attributes:
      field: its dotted name.
      there: its value in the folder.
      here: its value now.
    """

    field: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.field} is {_short(self.there)} there and {_short(self.here)} here"

    @property
    def grows(self) -> bool:
        """Whether it is a number that has become greater."""
        there, here = self.there, self.here
        return all(isinstance(v, int | float) for v in (there, here)) and here > there


def open_workdir(
    workdir: Path, config: Any, resume: str, *traces: str, free: Collection[str] = ()
) -> list[Difference]:
    """Create the folder and write `config.json` there, which is the newest config.

    Args:
      workdir: the folder.
      config: the dataclass that the run follows.
      resume: `never` refuses a folder where a run has begun; `auto` goes on with it.
      traces: patterns of paths in the folder; if any exists, a run has begun.
      free: dotted names of fields that may differ from what the run has begun with; those in
        `GROWING` may not become less.

    Returns:
      The fields that do differ.

    Raises:
      ValueError: the folder cannot be written, or holds a run that may not be gone on with, or
        one of another config.
    """
    check_name(str(workdir), workdir)
    record = workdir / "config.json"
    changes: list[Difference] = []
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        begun = any(path for trace in traces for path in workdir.glob(trace))
        if begun and resume == "never":
            raise ValueError(
                f"{workdir} already holds a run; go on with --resume auto, or choose another "
                "--workdir."
            )
        if begun and record.exists():
            changes = list(_differences(_read(record), config))
            _refuse(workdir, changes, free)
        if jax.process_index() == 0:
            with replacing(record) as file:
                file.write_text(json.dumps(absolute(config), indent=1))
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written ({error.strerror}); choose a folder of yours."
        ) from error
    return changes


def _refuse(workdir: Path, changes: list[Difference], free: Collection[str]) -> None:
    refused = [
        change
        for change in changes
        if change.field not in free or (change.field in GROWING and not change.grows)
    ]
    if refused:
        first, *others = refused
        less = first.field in GROWING and all(isinstance(v, int | float) for v in first[1:])
        also = _names([change.field for change in others])
        raise ValueError(
            f"{workdir} holds a run of another config: {first}{'; it may only grow' * less}{also}. "
            "Give the same, or choose another --workdir."
        )


def _names(fields: list[str]) -> str:
    """The end of a message: the fields that differ beside the first one."""
    if not fields:
        return ""
    more = f" and {len(fields) - _FEW} more" if len(fields) > _FEW else ""
    return f"; other values too of {', '.join(fields[:_FEW])}{more}"


def _read(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{record} is not the config of a run; delete that file to go on with the config at "
            "hand, or choose another --workdir."
        ) from error


def _differences(there: Any, here: Any, name: str = "") -> Iterator[Difference]:
    """Those of a config from what is stored of one, perhaps by a version that had fewer fields."""
    inside = f"{name}." if name else ""
    if isinstance(there, dict) and _is_kind_of(here, there):
        for field in dataclasses.fields(here):
            stored = there[field.name] if field.name in there else _json(_default(field))
            value = getattr(here, field.name)
            if field.metadata.get("path"):
                stored, value = (path and absolute_path(path) for path in (stored, value))
            yield from _differences(stored, value, inside + field.name)
    elif isinstance(here, Mapping) and isinstance(there, dict) and here.keys() == there.keys():
        for key, value in here.items():
            yield from _differences(there[key], value, inside + key)
    elif _holds_configs(here) and isinstance(there, list) and len(here) == len(there):
        for number, (stored, value) in enumerate(zip(there, here, strict=True)):
            yield from _differences(stored, value, f"{inside}{number}")
    elif there != _json(here):
        yield Difference(name, there, _json(here))


def _is_kind_of(here: Any, there: dict[str, Any]) -> bool:
    """Whether what is stored is of the same class: of another version, most fields are the same."""
    if not dataclasses.is_dataclass(here):
        return False
    known = there.keys() & {field.name for field in dataclasses.fields(here)}
    return 2 * len(known) > len(there)


def _holds_configs(value: Any) -> bool:
    return isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value))


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _json(value: Any) -> Any:
    """A value as it comes back from a JSON file."""
    if value is dataclasses.MISSING:
        return None
    return json.loads(json.dumps(absolute(value)))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
