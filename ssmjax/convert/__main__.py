"""Turn an official PyTorch checkpoint into a weight file, or back.

python -m ssmjax.convert CHECKPOINT.pth --model NAME --out FILE.safetensors [--ema]
python -m ssmjax.convert FILE.safetensors --to-torch --out CHECKPOINT.pth
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from flax import nnx

from ssmjax import command_line, imagenet
from ssmjax.analysis.flops import count_parameters
from ssmjax.convert.files import read_checkpoint, write_checkpoint
from ssmjax.convert.keymap import Entry
from ssmjax.convert.load import family, load_torch_state_dict, official_shapes
from ssmjax.models.backbone import Backbone
from ssmjax.registry import config_overrides, create_model, list_models
from ssmjax.weights import Metadata, read_metadata, save_weights


@dataclasses.dataclass(frozen=True)
class Options:
    """Turn an official PyTorch checkpoint into a weight file of ssmjax, or back."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Official .pth, .pt or .safetensors; with --to-torch, a weight file of ssmjax."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write: .safetensors; with --to-torch, .pth, .pt or .safetensors."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model; a weight file of ssmjax knows it."""
    ema: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the averaged weights (model_ema) of the checkpoint."""
    img_size: Annotated[tuple[int, ...], tyro.conf.arg(metavar="PIXELS ...")] = ()
    """Height and width, or one side, to resize the position embeddings to."""
    to_torch: tyro.conf.FlagCreatePairsOff[bool] = False
    """From a weight file of ssmjax to an official checkpoint."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, convert. Raises ValueError or OSError, one sentence for people."""
    options = command_line.parse(Options, arguments)
    _check(options)
    out = options.out
    if options.to_torch:
        name = read_metadata(options.checkpoint).model
        model = create_model(options.model, weights=options.checkpoint, prune=None)
        write = partial(write_checkpoint, out, model)
    else:
        name = str(options.model)
        model = _read(options, name)
        overrides = config_overrides(name, model.config)
        classes = tuple(imagenet.synsets())
        metadata = Metadata(
            name,
            overrides,
            classes if len(classes) == model.config.num_classes else (),
            *imagenet.photos(name),
        )
        write = partial(save_weights, out, model, metadata)
    try:
        write()
    except OSError as error:
        raise OSError(f"{out} cannot be written: {error.strerror}.") from error
    (height, width, _), classes = model.config.image_shape, model.config.num_classes
    print(
        f"{out}: {name}, {count_parameters(model):,} parameters, {classes} classes, "
        f"{height} x {width} pixels, {out.stat().st_size / 1e6:.1f} MB"
    )


def _check(options: Options) -> None:
    endings = (".pth", ".pt", ".safetensors") if options.to_torch else (".safetensors",)
    if options.out.suffix not in endings:
        raise ValueError(f"--out is {options.out}; its name must end in {' or '.join(endings)}.")
    if options.out.is_dir():
        raise ValueError(f"--out is {options.out}, a folder; name a file.")
    if options.out.resolve() == options.checkpoint.resolve():
        raise ValueError("--out is the checkpoint itself; choose another name.")
    if options.to_torch and (options.ema or options.img_size):
        raise ValueError("--ema and --img-size are for official checkpoints, not for --to-torch.")
    if not options.to_torch and options.model is None:
        raise ValueError(f"--model is missing; choose one of {', '.join(list_models())}.")


def _read(options: Options, name: str) -> Backbone:
    """The model of an official checkpoint."""
    size = options.img_size
    overrides = {"img_size": size[0] if len(size) == 1 else size} if size else {}
    _outline(name, {}, **overrides)  # Finds a wrong name or size before a large file is read.
    state = read_checkpoint(options.checkpoint, ema=options.ema)
    model = _outline(name, state, **overrides)
    try:
        _fit_positions(model, state, resize=bool(size))
        load_torch_state_dict(model, state)
    except ValueError as error:
        similar = _similar(state)
        hint = f"; it looks like {similar}" if similar not in (None, name) else ""
        raise ValueError(f"{options.checkpoint} does not fit {name}{hint}: {error}") from error
    return model


def _outline(name: str, state: Mapping[str, np.ndarray], **overrides) -> Backbone:
    """The model with as many classes as the head in `state`, as shapes without values."""
    outline = nnx.eval_shape(partial(create_model, name, **overrides))
    head = next(entry.theirs for entry in _table(outline) if entry.ours == "head.bias")
    if head in state and state[head].size:
        overrides["num_classes"] = len(state[head].ravel())
    return nnx.eval_shape(partial(create_model, name, **overrides))


def _table(model: Backbone) -> list[Entry]:
    return family(model.config).table(model.config)


def _fit_positions(outline: Backbone, state: dict[str, np.ndarray], *, resize: bool) -> None:
    """Resize position embeddings in `state` if told to; refuse those that would have to be."""
    wanted = official_shapes(outline)
    for entry in _table(outline):
        if entry.resize is None or entry.theirs not in state:
            continue
        given = state[entry.theirs]
        resized = entry.resize(given.astype(np.float32))
        if resize:  # Even to as many patches: the official grids are square, this may not be.
            state[entry.theirs] = resized
        elif given.shape != wanted[entry.theirs] == resized.shape:
            raise ValueError(
                f"{entry.theirs} has shape {given.shape}, not {wanted[entry.theirs]}; "
                "--img-size would resize it."
            )


def _similar(state: Mapping[str, np.ndarray]) -> str | None:
    """The first registered model with the names and shapes of `state`."""
    shapes = {name: array.shape for name, array in state.items()}
    for name in list_models():
        with contextlib.suppress(ValueError):  # Of models that have no official checkpoints.
            if official_shapes(_outline(name, state)) == shapes:
                return name
    return None


if __name__ == "__main__":
    command_line.run(main)
