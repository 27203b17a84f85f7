"""What the commands share: `--config FILE` with overrides, and every error as one line."""

import argparse
import contextlib
import io
import itertools
import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import tyro

from train.config import Config, load_config
from train.data.fetch import DataError

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

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_sentence(complaint.getvalue())) from None


def run(main: Callable[[], None]) -> None:
    """Run a command; what went wrong becomes one line on stderr and exit status 2."""
    try:
        main()
    except (ValueError, NotImplementedError, DataError, OSError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; run again with --resume auto to go on.", file=sys.stderr)
        sys.exit(130)


def _sentence(box: str) -> str:
    """What tyro says in the first part of a framed box, as one line without the frame."""
    lines = box[box.index("╭") :].splitlines()[1:] if "╭" in box else box.splitlines()
    words = [line.strip("│╭╮╰╯ ") for line in lines]
    said = itertools.takewhile(lambda line: not line.startswith("─"), words)
    return f"{' '.join(said).removesuffix('.')}. See --help for all options."
