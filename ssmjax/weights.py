"""Weight files: safetensors that carry the model's name, config, classes and preprocessing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from ssmjax.atomic import replacing
from ssmjax.fitting import KIND, MisfitError, in_dtype, unwrapped
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.models.config import BackboneConfig, trunk_config
from ssmjax.preprocess import Preprocessing
from ssmjax.strange_files import absent, instead

KEY = "ssmjax"  # Of the JSON in the file's own metadata.


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a weight file says about itself.

    Attributes:
      model: registered name of the model it was made from.
      config: the fields of its config that differ from the registered one, `prune` among them as
        a dict of its fields.
      class_names: one name per output of the head.
      preprocessing: how the model takes images; its fields stand beside the others in the file.
    """

    model: str
    config: dict
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def flat_params(model: nnx.Module) -> dict[str, nnx.Variable]:
    """{dotted path: variable} of a model: parameters and the statistics of batch norms."""
    flat = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): leaf for path, leaf in flat}


def save_weights(path: str | Path, model: nnx.Module, metadata: Metadata) -> None:
    """Write a model's parameters and statistics as one safetensors file, whole or not at all.

    Numbers are float32, and int32 where they are whole.

    Raises:
      OSError: the folder cannot be written.
    """
    path = Path(path)
    arrays = {name: _narrow(np.asarray(leaf[...])) for name, leaf in flat_params(model).items()}
    fields = dataclasses.asdict(metadata)
    fields |= fields.pop("preprocessing")
    text = {KEY: json.dumps(fields)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_bytes(safetensors.numpy.save(arrays, metadata=text))


def _narrow(array: np.ndarray) -> np.ndarray:
    """As files have it: models may be wider, where JAX knows 64 bits."""
    return array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float32)


def read_metadata(path: str | Path) -> Metadata:
    """What the weight file at `path` says about itself.

    Raises:
      ValueError: the file is missing, not safetensors, cut short, or not one of ours.
    """
    with open_safetensors(path) as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file without a model's name and config; an official one "
            "becomes a weight file by python -m ssmjax.convert, a model of yours by "
            "`ssmjax.weights.save_weights`."
        )
    try:
        fields = json.loads(text)
        for name in ("class_names", "mean", "std"):
            fields[name] = tuple(fields[name])
        names = [field.name for field in dataclasses.fields(Preprocessing)]
        how = {name: fields.pop(name) for name in names if name in fields}
        return Metadata(**fields, preprocessing=Preprocessing(**how))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} describes its model in a way that this version does not know ({error}); "
            "make it again with the version at hand."
        ) from error


def load_weights(path: str | Path, model: Any, made_for: BackboneConfig | None = None) -> None:
    """Fill `model` in place from a weight file, all of it or nothing.

    Values become what the model's variables are, float32 and whole numbers, whatever floating-point
    numbers the file holds. A prefix before all names, such as "model.", goes.

    Args:
      path: from `save_weights`.
      model: a classifier or a model of the dense tasks, or what `nnx.eval_shape` makes of one.
      made_for: the config of the classifier, or of the dense model's trunk, that the file was made
        for: position embeddings of another grid are resized, and the head of a classifier stays as
        it is where the model has another number of classes. None: all must fit.

    Raises:
      ValueError: the file cannot be read, or one error (`ssmjax.fitting.MisfitError`) for every
        parameter that is missing, unknown, of another shape, of no floating-point numbers or not
        finite.
    """
    params = flat_params(model)
    arrays, prefix = unwrapped(read_arrays(path), params)
    configs = None if made_for is None else (made_for, trunk_config(model.config))
    if configs is not None and configs[0].num_classes != configs[1].num_classes:
        for name in [name for name in params if name.startswith("head.")]:
            arrays.pop(name, None)
            params.pop(name)
    problems = [f"missing {name}" for name in sorted(set(params) - set(arrays))]
    problems += [f"unknown {name}" for name in sorted(set(arrays) - set(params))]
    for name in sorted(set(params) & set(arrays)):
        leaf = params[name]
        try:
            array = in_dtype(name, arrays[name], leaf.dtype)
            if configs is not None and name.split(".")[-1] == "pos_embed":
                array = _regridded(array, *configs)
            if array.shape != leaf.shape:
                raise ValueError(f"is {array.shape}, not {leaf.shape}")
            arrays[name] = array
        except ValueError as error:
            problems.append(f"{name} {error}")
    if problems:
        raise MisfitError(f"{path} does not fit this model", problems, prefix)
    for name, leaf in params.items():
        leaf.set_value(jnp.asarray(arrays[name]))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a safetensors file.

    Raises:
      ValueError: the file is missing, not safetensors, cut short, or holds numbers that numpy does
        not know, such as those of 8 bits.
    """
    arrays = {}
    with open_safetensors(path) as file:
        for name in file.keys():  # noqa: SIM118
            try:
                arrays[name] = file.get_tensor(name)
            except (AttributeError, TypeError) as error:
                raise ValueError(
                    f"{path} cannot be used: {name} holds {file.get_slice(name).get_dtype()}, not "
                    f"{KIND}."
                ) from error
    return arrays


def open_safetensors(path: str | Path):
    """A safetensors file, to be used with `with`. Raises ValueError where it is none."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no weight file {path}; {absent(path)}.")
    try:
        return safetensors.safe_open(str(path), framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); {instead(path, 'safetensors')}."
        ) from error


def _regridded(embedding: np.ndarray, old: BackboneConfig, new: BackboneConfig) -> np.ndarray:
    """Position embeddings of one config's grid for another's; of no grid of the first, as given."""
    if embedding.shape != (1, old.length, old.embed_dim):
        return embedding
    class_token = old.class_index, new.class_index
    return resize_pos_embed(embedding, old.grid, new.grid, class_token=class_token)
