"""The backbone of a dense model from a classifier."""

from pathlib import Path

import jax.numpy as jnp

from ssmjax.dense.backbones.plain_mamba import PlainMambaFeatures
from ssmjax.dense.registry import DenseModel
from ssmjax.fitting import MisfitError
from ssmjax.registry import create_classifier
from ssmjax.weights import flat_params, read_metadata

_OWN = ("norm", "head")  # Parts of a classifier that a dense model may do without.


def load_classifier(model: DenseModel, weights: str | Path) -> None:
    """Fill the backbone of `model` in place from a classifier, as the published training starts.

    Its final norm becomes the last one of a segmentor, and is left out of a detector; so is its
    head. Position embeddings are resized to those of the backbone. A class token goes, and its
    position embedding with it; the official code of Vim takes the first embedding for that one,
    which since the class token stands in the middle is a patch's.

    Args:
      model: from `ssmjax.dense.registry.create_model`.
      weights: a PlainMamba or Vim of the same sizes, from `ssmjax.weights.save_weights`.

    Raises:
      ValueError: the file cannot be read, or holds another model; `model` is then unchanged.
    """
    config = model.config.backbone.trunk
    classifier = create_classifier(weights=weights, prune=None, img_size=config.img_size)
    values = {name: leaf[...] for name, leaf in flat_params(classifier).items()}
    if classifier.config.class_index is not None and config.class_index is None:
        del values["cls_token"]
        values["pos_embed"] = jnp.delete(values["pos_embed"], classifier.config.class_index, axis=1)
    backbone = model.backbone
    places = flat_params(backbone.trunk)
    if isinstance(backbone, PlainMambaFeatures):
        last = flat_params(backbone.norms[-1])
        places |= {f"norm.{name}": leaf for name, leaf in last.items()}
    left = sorted(set(values) - set(places))
    problems = [f"unknown {name}" for name in left if name.split(".")[0] not in _OWN]
    for name, leaf in places.items():
        if name not in values:
            problems.append(f"missing {name}")
        elif values[name].shape != leaf.shape:
            problems.append(f"{name} is {values[name].shape}, not {leaf.shape}")
    if problems:
        raise MisfitError(
            f"{weights} holds a {read_metadata(weights).model}, which is not the backbone of this "
            "model",
            problems,
        )
    for name, leaf in places.items():
        leaf.set_value(jnp.asarray(values[name]))
