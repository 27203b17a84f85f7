"""Say what photos show, and draw which patches the model kept.

python -m ssmjax.predict PHOTO ... --weights FILE [--top 5] [--picture OUT.png]
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from PIL import Image, ImageOps
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssmjax import command_line, imagenet
from ssmjax.analysis.pictures import kept_tokens_picture
from ssmjax.atomic import replacing
from ssmjax.models.backbone import Backbone
from ssmjax.pruning import PruneConfig
from ssmjax.registry import create_model
from ssmjax.weights import Metadata, read_metadata

BATCH = 32  # Photos that go through the model at once.


@dataclasses.dataclass(frozen=True)
class Options:
    """Say what photos show, and draw which patches the model kept."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Photos of any usual format and size."""
    weights: Path
    """Weight file, as `train.finetune` and `ssmjax.convert` write them."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the model, to be sure; the weight file knows it."""
    top: int = 5
    """How many classes to print for each photo."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="OUT.png")] = None
    """PNG to write: each photo and, per pruning stage, the patches kept."""
    after_blocks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="BLOCK ...")] = ()
    """Prune after these blocks, counted from 1, instead of as the weight file says."""
    keep_ratio: Annotated[float | None, tyro.conf.arg(metavar="RATIO")] = None
    """Share of the patches kept at each of them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, predict. Raises ValueError or OSError, one sentence for people."""
    _predict(command_line.parse(Options, arguments))


def read_image(path: Path, size: tuple[int, int], crop_pct: float = 1.0) -> np.ndarray:
    """Read the middle of a photo as people see it: upright, in RGB, transparent parts white.

    Args:
      path: of any format Pillow reads; 16-bit grey is brought to 8 bits, and of an animation the
        first frame is taken.
      size: (height, width) in pixels of the result; what has another shape is cut off (bicubic).
      crop_pct: share of the photo used along the side that is not cut.

    Returns:
      [height,width,3] uint8.

    Raises:
      ValueError: there is no such file, or it is not a whole, readable image.
    """
    if not path.is_file():
        raise ValueError(f"There is no image file {path}; check the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Large, yet read.
            image = Image.open(path)
        with image:
            image = ImageOps.exif_transpose(image)
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers of no known range")
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip instead of scale.
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
    # Pillow's readers raise all of these for broken files.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}); give a sound JPEG, PNG, WebP, TIFF, BMP "
            "or GIF of 8 or 16 bits."
        ) from error
    height, width = size
    border = (1 - crop_pct) / 2
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC, bleed=border))


def _predict(options: Options) -> None:
    if not options.images:
        raise ValueError("No image was given; name one or more image files.")
    if options.top < 1:
        raise ValueError(f"--top is {options.top}; it must be at least 1.")
    if options.picture:
        if options.picture.suffix.lower() != ".png":
            raise ValueError(f"--picture is {options.picture}; its name must end in .png.")
        if options.picture.is_dir():
            raise ValueError(f"--picture is {options.picture}, a folder; name a file.")
        if not options.picture.absolute().parent.is_dir():
            raise ValueError(f"The folder of --picture {options.picture} does not exist; make it.")
    metadata = read_metadata(options.weights)
    model = create_model(options.model, weights=options.weights, prune=_pruning(options))
    config = model.config
    if config.in_channels != 3:
        raise ValueError(f"The model takes {config.in_channels} channels; photos have 3.")
    if options.picture and config.prune is None:
        raise ValueError(
            "--picture shows the patches kept, and this model is dense; say where to prune, as "
            "--after-blocks 2 3 --keep-ratio 0.7."
        )

    size = config.image_shape[:2]
    images = np.stack([read_image(path, size, metadata.crop_pct) for path in options.images])
    probabilities, stages = _classify(model, images, metadata)
    names = imagenet.readable(metadata.class_names)
    if len(names) != config.num_classes:
        names = tuple(f"class {number}" for number in range(config.num_classes))
    _print_table(options.images, probabilities, names, options.top)
    if options.picture:
        captions = [
            f"{path.name}: {names[p.argmax()]} ({100 * p.max():.0f}%)"
            for path, p in zip(options.images, probabilities, strict=True)
        ]
        _save(kept_tokens_picture(images, stages, config, captions), options.picture)


def _pruning(options: Options) -> PruneConfig | Literal["stored"]:
    if not options.after_blocks and options.keep_ratio is None:
        return "stored"
    if not options.after_blocks or options.keep_ratio is None:
        raise ValueError("--after-blocks and --keep-ratio go together; give both or neither.")
    return PruneConfig(options.after_blocks, options.keep_ratio)


def _classify(
    model: Backbone, images: np.ndarray, metadata: Metadata
) -> tuple[np.ndarray, list[np.ndarray]]:
    """[n,height,width,3] uint8 to [n,num_classes] probabilities and per stage [n,K_i] positions."""
    probabilities, stages = [], []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].astype(np.float32) / 255
        batch = (batch - np.array(metadata.mean, np.float32)) / np.array(metadata.std, np.float32)
        logits, positions = model(batch, key=jax.random.key(0), return_positions=True)
        probabilities.append(np.asarray(jax.nn.softmax(logits)))
        stages.append([np.asarray(stage) for stage in positions])
    return np.concatenate(probabilities), [np.concatenate(s) for s in zip(*stages, strict=True)]


def _print_table(
    paths: Sequence[Path], probabilities: np.ndarray, names: tuple[str, ...], top: int
) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right", no_wrap=True)
    for path, p in zip(paths, probabilities, strict=True):
        for rank, index in enumerate(np.argsort(-p, kind="stable")[:top]):
            # Text, since square brackets in a name are not markup.
            name = Text(str(path) if rank == 0 else "")
            table.add_row(name, Text(names[index]), f"{100 * p[index]:.1f}%")
        table.add_section()
    Console().print(table)


def _save(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    try:
        with replacing(path) as file:
            picture.save(file, format="PNG")
    except OSError as error:
        raise OSError(f"The picture {path} cannot be written: {error.strerror}.") from error


if __name__ == "__main__":
    command_line.run(main)
