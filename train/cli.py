"""`--config FILE` with overrides from the command line."""

import argparse
import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, TypeVar

import tyro

from ssmjax import command_line

# Modules that config files of earlier versions import, and where these are now.
MOVED = {
    "ssmjax.dense.ranges": "ssmjax.dense.backbones.ranges",
    "train.dense_recipes": "train.recipes.dense",
    "train.small_recipes": "train.recipes.small",
    "train.data.dense_config": "train.data.dense.config",
}

Kind = TypeVar("Kind")
Options = TypeVar("Options")


def parse(kind: type[Kind], options: type[Options], description: str) -> tuple[Kind, Options]:
    """Read the command line.

    Args:
      kind: what the file defines, such as `train.config.Config`; it can be made without arguments.
      options: a dataclass of the command's own options, one of them `config`, a file's path.
      description: for `--help`.

    Returns:
      The config that the file defines, with the command line's overrides, and the options.

    Raises:
      ValueError: a file that is none, or an option or value that is refused.
      SystemExit: after `--help`.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", nargs="?")  # Without a value it is missing.
    found, others = finder.parse_known_args()
    if found.config is None and not {"-h", "--help"} & set(others):
        raise ValueError("--config is missing; give a file, as --config configs/NAME.py.")
    loaded = kind() if found.config is None else load_config(found.config, kind)
    flat = tyro.conf.arg(name="")

    def command(
        options: Annotated[options, flat],  # pyright: ignore[reportInvalidTypeForm]
        config: Annotated[tyro.conf.AvoidSubcommands[kind], flat] = loaded,  # pyright: ignore[reportInvalidTypeForm]
    ):  # A return type would only make tyro warn of its type variable.
        return config, options

    return command_line.parse(command, description=description)


def load_config(path: str, kind: type[Kind]) -> Kind:
    """The `config = Config(...)`, or another kind named likewise, that a Python file defines.

    It may import modules by the names that they had in earlier versions.

    Raises:
      ValueError: no such file, a file that fails to run, or one that defines no such thing.
    """
    name, path = kind.__name__.lower(), os.path.expanduser(path)
    if not Path(path).is_file():
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("[!.]*.py"))) or "none here"
        raise ValueError(f"There is no config file {path}; those in configs/: {known}.")
    try:
        with _former_names():
            config = runpy.run_path(path).get(name)
    except Exception as error:
        raise ValueError(f"The config file {path} fails: {error}") from error
    if not isinstance(config, kind):
        raise ValueError(
            f"{path} must define `{name} = {kind.__name__}(...)`, from {kind.__module__}."
        )
    return config


@contextlib.contextmanager
def _former_names() -> Iterator[None]:
    """While it lasts, the modules of `MOVED` can be imported by their former names."""
    finder = _Moved()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what `MOVED` names, and loads it with the content of the module of today."""

    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        now = vars(importlib.import_module(MOVED[module.__name__]))
        vars(module).update({name: v for name, v in now.items() if not name.startswith("__")})
