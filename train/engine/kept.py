"""What takes long to measure, kept in a run's folder with what it depends on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax

from ssmjax.atomic import replacing
from train.metrics.gather import from_all_processes


class Kept:
    """Values by name, in a JSON file that is written whole or not at all.

    Of several processes the first reads and writes, and all know what it knows.
    """

    def __init__(self, path: Path):
        """All processes must call this alike; a file that cannot be read holds nothing."""
        self._path = path
        mine = path.read_bytes() if jax.process_index() == 0 and path.exists() else b""
        try:
            self._entries: dict[str, Any] = dict(json.loads(from_all_processes(mine)[0]))
        except (ValueError, TypeError):
            self._entries = {}

    def get(self, name: str, depends: Any) -> Any:
        """The value of a name, or None where there is none that follows from the same.

        `depends` is what it follows from, of what JSON has and what has a `repr`.
        """
        entry = self._entries.get(name)
        if isinstance(entry, dict) and entry.get("depends") == _digest(depends):
            return entry.get("value")
        return None

    def put(self, name: str, depends: Any, value: Any) -> None:
        """Keep a value, as JSON has it, in place of what was kept by this name."""
        self._entries[name] = {"depends": _digest(depends), "value": value}
        if jax.process_index() == 0:
            with replacing(self._path) as file:
                file.write_text(json.dumps(self._entries, indent=1) + "\n")


def _digest(depends: Any) -> str:
    text = json.dumps(depends, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
