"""Turn an official PyTorch checkpoint into a weight file, or back.

python -m ssmjax.convert CHECKPOINT.pth --model NAME --out FILE.safetensors [--ema]
    [--img-size 192 256 [--grid 14 14]]
python -m ssmjax.convert FILE.safetensors --to-torch --out CHECKPOINT.pth
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from flax import nnx

from ssmjax import command_line, imagenet
from ssmjax.analysis.flops import count_parameters
from ssmjax.class_names import ADE20K, COCO
from ssmjax.convert.files import read_checkpoint, write_checkpoint
from ssmjax.convert.load import family, load_torch_state_dict, official_shapes, table
from ssmjax.convert.positions import Grid, patches_of
from ssmjax.fitting import unwrapped
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import overridden, trunk_config
from ssmjax.registry import config_overrides, create_model, entry, list_models
from ssmjax.weights import Metadata, read_metadata, save_weights

if TYPE_CHECKING:
    from ssmjax.convert.load import Model


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
    grid: Annotated[tuple[int, ...], tyro.conf.arg(metavar="PATCHES ...")] = ()
    """Rows and columns of patches, or one number for both, that the checkpoint's position
    embeddings are of; needed where neither the file nor the published models tell."""
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
        model, noted = _read(options, name)
        overrides = config_overrides(name, model.config)
        classes = _class_names(model, noted)
        metadata = Metadata(name, overrides, classes, imagenet.preprocessing(name))
        write = partial(save_weights, out, model, metadata)
    try:
        write()
    except OSError as error:
        raise OSError(f"{out} cannot be written: {error.strerror}.") from error
    size = "any size"
    if isinstance(model, Backbone):
        height, width, _ = model.config.image_shape
        size = f"{height} x {width} pixels"
    print(
        f"{out}: {name}, {count_parameters(model):,} parameters, {model.config.num_classes} "
        f"classes, {size}, {out.stat().st_size / 1e6:.1f} MB"
    )


def _check(options: Options) -> None:
    endings = (".pth", ".pt", ".safetensors") if options.to_torch else (".safetensors",)
    if options.out.suffix not in endings:
        raise ValueError(f"--out is {options.out}; its name must end in {' or '.join(endings)}.")
    if options.out.is_dir():
        raise ValueError(f"--out is {options.out}, a folder; name a file.")
    if options.out.resolve() == options.checkpoint.resolve():
        raise ValueError("--out is the checkpoint itself; choose another name.")
    if options.to_torch and (options.ema or options.img_size or options.grid):
        raise ValueError(
            "--ema, --img-size and --grid are for official checkpoints, not for --to-torch."
        )
    if len(options.grid) > 2 or min(options.grid, default=1) < 1:
        raise ValueError(
            f"--grid is {' '.join(map(str, options.grid))}; give rows and columns of patches, as "
            "--grid 14 14."
        )
    if not options.to_torch and options.model is None:
        raise ValueError(f"--model is missing; choose one of {', '.join(list_models())}.")


def _class_names(model: Model, noted: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a checkpoint notes, or of the data that such models are published for."""
    is_classifier, count = isinstance(model, Backbone), model.config.num_classes
    choice = (tuple(imagenet.synsets()), noted) if is_classifier else (noted, COCO, ADE20K)
    return next((names for names in choice if len(names) == count), ())


def _read(options: Options, name: str) -> tuple[Model, tuple[str, ...]]:
    """The model of an official checkpoint, and the class names that the file notes."""
    size = options.img_size
    overrides = {"img_size": size[0] if len(size) == 1 else size} if size else {}
    # Finds a wrong name or size before a large file is read.
    family(overridden(entry(name).config, overrides))
    state, class_names, noted = read_checkpoint(options.checkpoint, ema=options.ema)
    grid = (options.grid[0], options.grid[-1]) if options.grid else noted
    if noted not in (None, grid):
        raise ValueError(
            f"--grid is {' '.join(map(str, options.grid))}, and {options.checkpoint} says that it "
            f"is of {noted[0]} x {noted[1]} patches; leave --grid out."
        )
    model = _outline(name, state, **overrides)
    try:
        if not size:
            _check_positions(model, state, grid)
        load_torch_state_dict(model, state, grid=grid)
    except ValueError as error:
        similar = _similar(state)
        hint = f"; it looks like {similar}" if similar not in (None, name) else ""
        raise ValueError(f"{options.checkpoint} does not fit {name}{hint}: {error}") from error
    return model, class_names


def _outline(name: str, state: Mapping[str, np.ndarray], **overrides) -> Model:
    """The model with as many classes as the head in `state`, as shapes without values."""
    config = overridden(entry(name).config, overrides)
    official = family(config)
    names = [row.theirs for row in official.table(config)]
    head = unwrapped(state, names)[0].get(official.head)
    if head is not None and head.size >= official.per_class:
        overrides["num_classes"] = head.size // official.per_class
    return nnx.eval_shape(partial(create_model, name, **overrides))


def _check_positions(outline: Model, state: Mapping[str, np.ndarray], grid: Grid | None) -> None:
    """Refuse position embeddings that would have to be resized."""
    shapes, config = official_shapes(outline), trunk_config(outline.config)
    arrays = unwrapped(state, shapes)[0]
    for row in table(outline.config):
        array = arrays.get(row.theirs)
        if row.positions is None or array is None:
            continue
        patches = patches_of(array.shape, config)
        if grid is not None and grid != config.grid and patches == grid[0] * grid[1]:
            raise ValueError(
                f"{row.theirs} is of {grid[0]} x {grid[1]} patches, the model of "
                f"{config.grid[0]} x {config.grid[1]}; give the size of its images by --img-size, "
                "or that to resize it to."
            )
        if patches is not None and array.shape != shapes[row.theirs]:
            raise ValueError(
                f"{row.theirs} has shape {array.shape}, not {shapes[row.theirs]}; "
                "--img-size would resize it."
            )


def _similar(state: Mapping[str, np.ndarray]) -> str | None:
    """The first registered model with the names and shapes of `state`."""
    for name in list_models():
        with contextlib.suppress(ValueError):  # Of models that have no official checkpoints.
            names = {row.theirs for row in table(entry(name).config)}
            arrays, _ = unwrapped(state, names)
            # Names are quickly compared; shapes take the outline of a model.
            if set(arrays) == names:
                shapes = official_shapes(_outline(name, state))
                if {key: array.shape for key, array in arrays.items()} == shapes:
                    return name
    return None


if __name__ == "__main__":
    command_line.run(main)
