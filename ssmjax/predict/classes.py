"""What classifiers say of photos."""

import functools

import jax
import numpy as np

from ssmjax import imagenet
from ssmjax.analysis.pictures import kept_tokens_picture
from ssmjax.models.backbone import Backbone
from ssmjax.photos import in_batches, read_images
from ssmjax.predict.options import Answer, Options
from ssmjax.terminal import printable
from ssmjax.weights import Metadata

BATCH = 32  # Photos that go through the model at once.


def predict(model: Backbone, metadata: Metadata, options: Options) -> Answer:
    """The most probable classes of each photo, and of a pruned model the patches it kept.

    Raises:
      ValueError: one sentence for people.
    """
    config, preprocessing = model.config, metadata.preprocessing
    if options.picture and config.prune is None:
        raise ValueError(
            "--picture shows the patches kept, and this model is dense; say where to prune, as "
            "--after-blocks 2 3 --keep-ratio 0.7."
        )
    classify = functools.partial(model, key=jax.random.key(0), return_positions=True)
    images = read_images(options.images, config, preprocessing.crop_pct)
    logits, stages = in_batches(classify, images, preprocessing, BATCH)
    probabilities = np.asarray(jax.nn.softmax(logits))
    names = class_names(metadata, config.num_classes)
    best = np.argsort(-probabilities, kind="stable")[:, : options.top]
    rows = [
        [(names[index], f"{100 * p[index]:.1f}%") for index in indices]
        for indices, p in zip(best, probabilities, strict=True)
    ]
    picture = None
    if options.picture:
        captions = [
            f"{printable(path.name)}: {names[p.argmax()]} ({100 * p.max():.0f}%)"
            for path, p in zip(options.images, probabilities, strict=True)
        ]
        picture = kept_tokens_picture(images, stages, config, captions)
    return Answer(("class", "probability"), rows, picture)


def class_names(metadata: Metadata, count: int) -> tuple[str, ...]:
    """Names for people of `count` classes: those of a weight file, or numbers where it has none."""
    names = tuple(map(printable, imagenet.readable(metadata.class_names)))
    return names if len(names) == count else tuple(f"class {number}" for number in range(count))
