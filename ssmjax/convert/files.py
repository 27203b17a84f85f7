"""Official checkpoint files, read as the untrusted input they are, and written."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from ssmjax.atomic import replacing
from ssmjax.convert.load import family, to_torch_state_dict

if TYPE_CHECKING:
    from ssmjax.convert.load import Model

# What training scripts note beside the weights; nothing is made of it.
_NOTES = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)


class _Note:
    """Stands for a note, whatever it was made of."""

    def __init__(self, *args: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Checkpoint(NamedTuple):
    """What is made of a checkpoint file.

    Attributes:
      weights: {official name: array in PyTorch's layout}, without a `module.` in front of all names
        and without the buffers `ema_...`, the unaveraged copies that PlainMamba's files may hold.
      class_names: as the file notes them, none where it does not.
    """

    weights: dict[str, np.ndarray]
    class_names: tuple[str, ...]


def read_checkpoint(path: Path, *, ema: bool = False) -> Checkpoint:
    """The official state_dict in a checkpoint file, and the class names beside it.

    Args:
      path: a safetensors file, told by its ending, or what `torch.save` wrote: a state_dict, or
        one among other things under `model` (Vim) or `state_dict` (PlainMamba).
      ema: take the averaged weights, under `model_ema`.

    Raises:
      ValueError: the file is missing, broken or of another kind, holds no such weights, or is a
        pickle that asks for more than tensors and plain values; or torch is needed and missing.
    """
    if not path.is_file():
        raise ValueError(f"There is no checkpoint file {path}; check the path.")
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
        state = _weights(path, content, ema)
    else:
        content = _read_torch(path)
        state = _arrays(path, _weights(path, content, ema))
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    weights = {name: array for name, array in state.items() if not name.startswith("ema_")}
    return Checkpoint(weights, _class_names(content))


def write_checkpoint(path: Path, model: Model) -> None:
    """Write a model as the official code would, whole or not at all.

    Args:
      path: ending in .safetensors for the state_dict alone, or else for `torch.load`, with what
        the official files hold around it.
      model: of a family that has official checkpoints.

    Raises:
      ValueError: the model has no conversion, or torch is needed and missing.
      OSError: the file cannot be written.
    """
    state = to_torch_state_dict(model)
    if path.suffix == ".safetensors":
        content = safetensors.numpy.save(state, metadata={"format": "pt"})
    else:
        torch, buffer = _torch(), io.BytesIO()
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(family(model.config).wrap(tensors), buffer)
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
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); it may be cut short: "
            "copy it again."
        ) from error


def _read_torch(path: Path) -> Any:
    """What `torch.save` wrote, with a `_Note` for every note that is no plain value."""
    torch = _torch()
    notes = [(_Note, name) for name in _NOTES]
    try:
        with torch.serialization.safe_globals(notes), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About kinds of files that are refused below.
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # Broken bytes make torch raise nearly anything.
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise ValueError(
                f"{path} is refused: it asks for {wanted[1]}, which could run any code; only "
                "tensors and plain values are read. Ask for a file with the state_dict alone."
            ) from error
        raise ValueError(
            f"{path} is not a whole file of torch.save; it may be cut short: copy it again. "
            "Other pickles could run any code and are refused."
        ) from error


def _weights(path: Path, content: Any, ema: bool) -> Mapping[str, Any]:
    """The state_dict in what a file holds."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ValueError(f"{path} holds no state_dict, only an object of type {kind}.")
    for key in ("model_ema",) if ema else ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            return content[key]
    if ema:
        names = [str(name) for name in content]
        held = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
        raise ValueError(
            f"{path} has no averaged weights under model_ema; it holds {held}. Leave --ema out."
        )
    return content


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
            f"{path} holds {', '.join(others)} where only tensors belong; a state_dict is looked "
            "for under model, under state_dict and as the whole."
        )
    try:
        return {
            str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in state.items()
        }
    except (TypeError, RuntimeError) as error:  # Sparse or quantised.
        raise ValueError(f"{path} holds tensors of an unusual kind ({error}).") from error
