"""Official checkpoint files, read as the untrusted input they are, and written."""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors.numpy

from ssmjax.atomic import replacing
from ssmjax.convert.load import family, to_torch_state_dict
from ssmjax.convert.positions import Grid
from ssmjax.models.config import trunk_config
from ssmjax.registry import official_grids
from ssmjax.strange_files import absent, instead
from ssmjax.weights import KEY, open_safetensors, read_arrays

if TYPE_CHECKING:
    from ssmjax.convert.load import Model

# What training scripts note beside the weights; nothing is made of it.
_NOTES = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)


GRID = "ssmjax_grid"  # What a file notes the grid of its position embeddings under.

_AVERAGED = ("model_ema", "state_dict_ema")
_FIRST = 8  # Names that a message gives.


class _Note:
    """Stands for a note, whatever it was made of."""

    def __init__(self, *args: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Checkpoint(NamedTuple):
    """What is made of a checkpoint file.

    Attributes:
      weights: {official name: array in PyTorch's layout}, without the buffers `ema_...`, the
        unaveraged copies that PlainMamba's files may hold.
      class_names: as the file notes them, none where it does not.
      grid: (H, W) patches of the position embeddings, as `write_checkpoint` notes them, or None.
    """

    weights: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    grid: Grid | None


def read_checkpoint(path: Path, *, ema: bool = False) -> Checkpoint:
    """The official state_dict in a checkpoint file, and the class names beside it.

    Args:
      path: a safetensors file, told by its ending, or what `torch.save` wrote: a state_dict, or
        one among other things under `model` (Vim) or `state_dict` (PlainMamba).
      ema: take the averaged weights, under `model_ema` (Vim) or `state_dict_ema` (timm).

    Raises:
      ValueError: the file is missing, broken or of another kind, holds no such weights, or is a
        pickle that asks for more than tensors and plain values; or torch is needed and missing.
    """
    if not path.is_file():
        raise ValueError(f"There is no checkpoint file {path}; {absent(path)}.")
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
        state, grid = _weights(path, content, ema), _read_grid(path)
    else:
        content = _read_torch(path)
        state, grid = _arrays(path, _weights(path, content, ema)), _grid(content.get(GRID))
    weights = {name: array for name, array in state.items() if not _is_buffer(name)}
    return Checkpoint(weights, _class_names(content), grid)


def write_checkpoint(path: Path, model: Model) -> None:
    """Write a model as the official code would, whole or not at all.

    Args:
      path: ending in .safetensors for the state_dict alone, or else for `torch.load`, with what
        the official files hold around it. The grid of the position embeddings is noted beside
        it where it is none of the published models'; the official code does not look for it.
      model: of a family that has official checkpoints.

    Raises:
      ValueError: the model has no conversion, or torch is needed and missing.
      OSError: the file cannot be written.
    """
    state, config = to_torch_state_dict(model), trunk_config(model.config)
    known = config.grid in official_grids(model.config)
    note = {} if known else {GRID: list(config.grid)}
    if path.suffix == ".safetensors":
        texts = {key: json.dumps(value) for key, value in note.items()}
        content = safetensors.numpy.save(state, metadata={"format": "pt", **texts})
    else:
        torch, buffer = _torch(), io.BytesIO()
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(family(model.config).wrap(tensors) | note, buffer)
        content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_bytes(content)


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "PyTorch files need torch: pip install 'ssmjax[convert]'. Safetensors do not."
        ) from error
    return torch


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with open_safetensors(path) as file:
        if KEY in (file.metadata() or {}):
            raise ValueError(
                f"{path} is a weight file of ssmjax already; with --to-torch it becomes an "
                "official checkpoint."
            )
    return read_arrays(path)


def _read_grid(path: Path) -> Grid | None:
    with open_safetensors(path) as file:
        text = (file.metadata() or {}).get(GRID, "")
    with contextlib.suppress(ValueError):
        return _grid(json.loads(text))
    return None


def _grid(noted: Any) -> Grid | None:
    """A note of rows and columns, or None for what is none."""
    if not isinstance(noted, list | tuple) or len(noted) != 2:
        return None
    if not all(isinstance(side, int) and side > 0 for side in noted):
        return None
    return noted[0], noted[1]


def _read_torch(path: Path) -> Any:
    """What `torch.save` wrote, with a `_Note` for every note that is no plain value."""
    torch = _torch()
    notes = [(_Note, name) for name in _NOTES]
    try:
        with torch.serialization.safe_globals(notes), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About kinds of files that are refused below.
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # Broken bytes make torch raise nearly anything.
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} is refused: it asks for {code[1]}, which could run any code; only "
                "tensors and plain values are read. Ask for a file with the state_dict alone."
            ) from error
        raise ValueError(
            f"{path} is not a whole file of torch.save; {instead(path, 'torch')}. Other "
            "pickles could run any code and are refused."
        ) from error


def _weights(path: Path, content: Any, ema: bool) -> Mapping[str, Any]:
    """The state_dict in what a file holds."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ValueError(f"{path} holds no state_dict, only an object of type {kind}.")
    for key in _AVERAGED if ema else ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            return content[key]
    if not ema:
        return content
    weights = content.get("state_dict")
    if isinstance(weights, Mapping) and any(map(_is_buffer, weights)):
        raise ValueError(
            f"{path} holds averaged weights already: those of its buffers ema_... are from before "
            "averaging. Leave --ema out."
        )
    raise ValueError(
        f"{path} has no averaged weights under {' or '.join(_AVERAGED)}; it holds "
        f"{_some(list(map(str, content)))}. Leave --ema out."
    )


def _is_buffer(name: Any) -> bool:
    """Whether it is what mmcv's `EMAHook` keeps beside a parameter; the dots are lines there."""
    return str(name).rpartition(".")[2].startswith("ema_")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_FIRST]) + ", ..." * (len(names) > _FIRST)


def _class_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that mmdetection and mmsegmentation note, of which some end in a space."""
    notes = content.get("meta")
    names = notes.get("CLASSES") if isinstance(notes, Mapping) else None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(name.strip() for name in names)


def _arrays(path: Path, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors as arrays, those of bfloat16, which numpy lacks, as float32."""
    torch = _torch()
    others = [
        f"{name} ({type(value).__name__})"
        for name, value in state.items()
        if not isinstance(value, torch.Tensor)
    ]
    if others:
        raise ValueError(
            f"{path} holds {_some(others)} where only tensors belong; a state_dict is looked "
            "for under model, under state_dict and as the whole."
        )
    try:
        return {
            str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in state.items()
        }
    except (TypeError, RuntimeError) as error:  # Sparse or quantised.
        raise ValueError(f"{path} holds tensors of an unusual kind ({error}).") from error
