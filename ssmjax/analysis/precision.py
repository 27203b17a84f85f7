"""What bfloat16 computation costs: the error of its logits against float32.

python -m ssmjax.analysis.precision --model vim_tiny_patch16_224
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ssmjax import command_line
from ssmjax.models.backbone import Backbone
from ssmjax.registry import create_classifier


@dataclasses.dataclass(frozen=True)
class Options:
    """What bfloat16 computation costs, on normally distributed images."""

    model: str | None = None
    """Name of a model with fresh parameters, or of the one in the weight file, to be sure."""
    weights: Path | None = None
    """Weight file, as `train.finetune` and `ssmjax.convert` write them."""
    images: int = 16
    """How many images."""


@dataclasses.dataclass(frozen=True)
class LogitError:
    """Of logits against a reference, relative to the reference's largest logit.

    Attributes:
      largest: over all images and classes.
      rms: root mean square, over all images and classes.
      agreement: share of the images whose best class is the same.
    """

    largest: float
    rms: float
    agreement: float


def logit_error(model: Backbone, reference: Backbone, images: jax.Array) -> LogitError:
    """Compare two models on images [B,height,width,channels]."""
    got, want = (np.asarray(m(images), np.float64) for m in (model, reference))
    error = (got - want) / np.abs(want).max()
    agreement = np.mean(want.argmax(axis=1) == got.argmax(axis=1))
    return LogitError(np.abs(error).max(), np.sqrt(np.mean(error**2)), float(agreement))


def main() -> None:
    """The command: one line."""
    options = command_line.parse(Options, description=__doc__ or "")
    lower, model = (
        create_classifier(options.model, weights=options.weights, prune=None, dtype=dtype)
        for dtype in ("bfloat16", "float32")
    )
    shape = (options.images, *model.config.image_shape)
    images = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    error = logit_error(lower, model, images)
    print(
        f"bfloat16 logits: largest error {error.largest:.1e}, rms {error.rms:.1e} of the largest "
        f"logit; the same best class in {100 * error.agreement:.0f}% of {options.images} images"
    )


if __name__ == "__main__":
    command_line.run(main)
