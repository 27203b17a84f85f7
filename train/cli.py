"""`--config FILE` with overrides from the command line."""

import argparse
from typing import Annotated, TypeVar

import tyro

from ssmjax import command_line
from train.config import Config, load_config

Options = TypeVar("Options")


def parse(options: type[Options], description: str) -> tuple[Config, Options]:
    """Read the command line.

    Args:
      options: a dataclass of the command's own options, one of them `config`, a file's path.
      description: for `--help`.

    Returns:
      The config that the file defines, with the command line's overrides, and the options.

    Raises:
      ValueError: a file that is none, or an option or value that is refused.
      SystemExit: after `--help`.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found, others = finder.parse_known_args()
    if found.config is None and not {"-h", "--help"} & set(others):
        raise ValueError("--config is missing; give a file, as --config configs/NAME.py.")
    loaded = Config() if found.config is None else load_config(found.config)
    flat = tyro.conf.arg(name="")

    def command(
        options: Annotated[options, flat],  # pyright: ignore[reportInvalidTypeForm]
        config: Annotated[tyro.conf.AvoidSubcommands[Config], flat] = loaded,
    ):  # A return type would only make tyro warn of its type variable.
        return config, options

    return command_line.parse(command, description=description)
