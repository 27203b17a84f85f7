"""What the commands share: `--config FILE` with overrides, and every error as one line."""

import argparse
import contextlib
import io
import re
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
    found, _ = finder.parse_known_args()
    loaded = Config() if found.config is None else load_config(found.config)
    flat = tyro.conf.arg(name="")

    def command(
        options: Annotated[options, flat],  # pyright: ignore[reportInvalidTypeForm]
        config: Annotated[tyro.conf.AvoidSubcommands[Config], flat] = loaded,
    ) -> tuple[Config, Options]:
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
    """What tyro says in a framed box, as one line without the frame and the closing hint."""
    lines = [re.sub(r"[│╭╮╰╯─]+", " ", line).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    return re.sub(r"For full helptext, see .*", "see --help for all options.", text)
