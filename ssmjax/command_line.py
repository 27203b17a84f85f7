"""What all commands share: options by tyro, and everything that goes wrong as one line."""

import contextlib
import dataclasses
import io
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssmjax import imagenet
from ssmjax.models.backbone import Backbone
from ssmjax.pruning import PruneConfig
from ssmjax.registry import create_classifier
from ssmjax.terminal import printable
from ssmjax.weights import Metadata, read_metadata


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierOptions:
    """Which classifier a command works on, and how it prunes."""

    weights: Path | None = None
    """Weight file, as `train.finetune` and `ssmjax.convert` write them."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model; with fresh parameters, unless a weight file is given."""
    prune: Literal["stored", "paper"] = "stored"
    """Prune as the weight file says, or as the paper does."""
    after_blocks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="BLOCK ...")] = ()
    """Prune after these blocks instead, counted from 1."""
    keep_ratio: Annotated[float | None, tyro.conf.arg(metavar="RATIO")] = None
    """Share of the patches kept at each of them."""

    def create(self) -> tuple[Backbone, Metadata]:
        """The classifier, and what its weight file says or would say.

        Raises:
          ValueError: neither weights nor a name is given, or as `pruning` and
            `ssmjax.registry.create_classifier` do.
        """
        prune = pruning(self.after_blocks, self.keep_ratio) or self.prune
        if self.weights is not None:
            metadata = read_metadata(self.weights)
        elif self.model is not None:
            metadata = Metadata(self.model, {}, (), imagenet.preprocessing(self.model))
        else:
            raise ValueError("No model was given; name a weight file with --weights.")
        return create_classifier(self.model, weights=self.weights, prune=prune), metadata


def parse(target: Any, arguments: Sequence[str] | None = None, *, description: str = "") -> Any:
    """What `tyro.cli` makes of the command line, or of `arguments`, with `~` as the home folder.

    Raises:
      ValueError: an option or value that is refused, in tyro's words, on one line.
      SystemExit: after `--help`.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            found = tyro.cli(target, args=arguments, description=description or None)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_sentence(complaint.getvalue())) from None
    return _expanded(found)


def pruning(
    after_blocks: tuple[int, ...], keep_ratio: float | None, kind: type[PruneConfig] = PruneConfig
) -> PruneConfig | None:
    """What the options --after-blocks and --keep-ratio ask for; None where neither is given.

    Args:
      after_blocks, keep_ratio: the options.
      kind: of the result: `prunes` of a `ssmjax.registry.Entry`.

    Raises:
      ValueError: one option without the other, or as `PruneConfig` does.
    """
    if not after_blocks and keep_ratio is None:
        return None
    if not after_blocks or keep_ratio is None:
        raise ValueError("--after-blocks and --keep-ratio go together; give both or neither.")
    return kind(after_blocks, keep_ratio)


def check_out(option: str, path: Path) -> None:
    """Refuse an option's value that no file can be written to; raises ValueError."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, a folder; name a file.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"The folder of {option} {path} does not exist; make it.")


def check_png(option: str, path: Path) -> None:
    """Refuse an option's value that no PNG can be written to; raises ValueError."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{option} is {path}; its name must end in .png.")
    check_out(option, path)


def run(main: Callable[[], None]) -> None:
    """Run a command; what went wrong becomes one line on stderr and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Names must not fail where they are printed.
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except (ValueError, NotImplementedError, OSError) as error:
        sentence = " ".join(filter(None, map(str.strip, str(error).splitlines())))
        print(f"error: {printable(sentence)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        sys.exit(130)


def _expanded(value: Any) -> Any:
    """Options with `~` replaced in every path, however deep; also those of defaults."""
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    if type(value) is tuple:
        return tuple(map(_expanded, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        changed = {name: new for name, of in fields.items() if (new := _expanded(of)) != of}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def _sentence(box: str) -> str:
    """What tyro says in the first part of a framed box, as one line without the frame."""
    lines = box[box.index("╭") :].splitlines()[1:] if "╭" in box else box.splitlines()
    words = [line.strip("│╭╮╰╯ ") for line in lines]
    first = itertools.takewhile(lambda line: not line.startswith("─"), words)
    return f"{' '.join(first).removesuffix('.')}. See --help for all options."
