"""Weight files: safetensors that carry the model's name, config, classes and normalisation."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from ssmjax.atomic import replacing
from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import BackboneConfig

_KEY = "ssmjax"  # Of the JSON in the file's own metadata.


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a weight file says about itself.

    Attributes:
      model: registered name of the model it was made from.
      config: the fields of its config that differ from the registered one, `prune` among them as
        a dict of its fields.
      class_names: one name per output of the head.
      mean: per channel, of images on a scale of 0 to 1.
      std: per channel, as `mean`.
      crop_pct: share of a photo's shorter side that the middle square of evaluation takes.
    """

    model: str
    config: dict
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float = 1.0


def flat_params(model: nnx.Module) -> dict[str, nnx.Variable]:
    """{dotted path: variable} of a model: parameters and the statistics of batch norms."""
    flat = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): leaf for path, leaf in flat}


def save_weights(path: str | Path, model: nnx.Module, metadata: Metadata) -> None:
    """Write a model's parameters and statistics as one safetensors file, whole or not at all.

    Raises:
      OSError: the folder cannot be written.
    """
    path = Path(path)
    arrays = {name: np.asarray(leaf[...]) for name, leaf in flat_params(model).items()}
    text = {_KEY: json.dumps(dataclasses.asdict(metadata))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_bytes(safetensors.numpy.save(arrays, metadata=text))


def read_metadata(path: str | Path) -> Metadata:
    """What the weight file at `path` says about itself.

    Raises:
      ValueError: the file is missing, not safetensors, cut short, or not one of ours.
    """
    with _open(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file without a model's name and config; make one with "
            "`ssmjax.weights.save_weights`."
        )
    try:
        fields = json.loads(text)
        for name in ("class_names", "mean", "std"):
            fields[name] = tuple(fields[name])
        return Metadata(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} describes its model in a way that this version does not know ({error}); "
            "make it again with the version at hand."
        ) from error


def load_weights(
    path: str | Path, model: nnx.Module, made_for: BackboneConfig | None = None
) -> None:
    """Fill `model` in place from a weight file, all of it or nothing.

    Args:
      path: from `save_weights`.
      model: a model, or what `nnx.eval_shape` makes of one.
      made_for: of a classifier, the config that the file was made for: position embeddings of
        another grid are resized, and the head stays as it is where the model has another number of
        classes. None: all must fit.

    Raises:
      ValueError: the file cannot be read, or one error that lists every parameter that is
        missing, unknown, of another shape or not finite.
    """
    with _open(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    params = flat_params(model)
    if isinstance(model, Backbone) and made_for is not None:
        if model.config.num_classes != made_for.num_classes:
            for name in [name for name in params if name.startswith("head.")]:
                arrays.pop(name, None)
                params.pop(name)
        embedding = arrays.get("pos_embed")
        if embedding is not None and embedding.shape == (1, made_for.length, made_for.embed_dim):
            arrays["pos_embed"] = resize_pos_embed(
                embedding,
                made_for.grid,
                model.config.grid,
                class_token=(made_for.class_index, model.config.class_index),
            )
    problems = [f"missing {name}" for name in sorted(set(params) - set(arrays))]
    problems += [f"unknown {name}" for name in sorted(set(arrays) - set(params))]
    for name in sorted(set(params) & set(arrays)):
        if arrays[name].shape != params[name].shape:
            problems.append(f"{name} is {arrays[name].shape}, not {params[name].shape}")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise ValueError(f"{path} does not fit this model: {'; '.join(problems)}.")
    for name, leaf in params.items():
        leaf.set_value(jnp.asarray(arrays[name]))


def _open(path: str | Path):
    if not Path(path).is_file():
        raise ValueError(f"There is no weight file {path}; check the path.")
    try:
        return safetensors.safe_open(str(path), framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); it may be cut short: "
            "copy it again."
        ) from error
