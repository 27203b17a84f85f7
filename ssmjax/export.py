"""Write a model as StableHLO, which JAX alone runs, on a CPU or a CUDA GPU.

python -m ssmjax.export --weights FILE --out OUT [--platforms cpu cuda] [--batch-size B]

In a process that has nothing of ssmjax, only jax and flatbuffers:

    exported = jax.export.deserialize(open(OUT, "rb").read())
    logits = exported.call(images)

images: [b,height,width,3] float32, (pixels / 255 - mean) / std; the command prints height, width,
mean and std. logits: [b,classes] float32. With --batch-size, b is that number; else any from 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import tyro
from flax import nnx
from jax import export, lax

from ssmjax import command_line
from ssmjax.atomic import replacing
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import SSMConfig
from ssmjax.weights import Metadata

Platform = Literal["cpu", "cuda"]

# What kernels are called in StableHLO, by the versions of JAX; it promises neither for another.
KERNEL_CALLS = ("__gpu$xla.gpu.triton", "triton_kernel_call_ffi")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.ClassifierOptions):
    """Write a model as StableHLO, which JAX alone runs."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write; any name."""
    platforms: tuple[Platform, ...] = ("cpu", "cuda")
    """What the file runs on."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="B")] = None
    """Images a call, always so many; with `--platforms cuda` the scan is then the GPU kernel."""


def scans(platforms: Sequence[str], batch_size: int | None) -> dict[str, str]:
    """{platform: implementation of the scan} in a file for these platforms.

    The GPU kernel needs to know how many images there are, and JAX lowers no kernel that one
    platform alone has into a module for several. Elsewhere a GPU takes the parallel form: few
    launches, but the state of every token is stored.
    """
    kernel = tuple(platforms) == ("cuda",) and batch_size is not None
    fastest = {"cpu": "reference", "cuda": "pallas_triton" if kernel else "associative"}
    return {platform: fastest[platform] for platform in platforms}


def export_model(
    model: Backbone, *, platforms: Sequence[str] = ("cpu", "cuda"), batch_size: int | None = None
) -> export.Exported:
    """A model as one StableHLO module with its parameters inside.

    Args:
      model: any, dense or pruned, but not by chance.
      platforms: of `cpu` and `cuda`; lowering for either works on any machine.
      batch_size: b; None: any.

    Returns:
      The function from images [b,height,width,channels] float32 to logits [b,num_classes] float32.

    Raises:
      ValueError: no platform, or one twice; a batch size below 1; a model that needs a random key.
      NotImplementedError: the GPU kernel, where this version of JAX compiles it for the GPU at
        hand and there is none.
    """
    if not platforms or len(set(platforms)) < len(platforms):
        raise ValueError(f"platforms is {tuple(platforms)}; give cpu, cuda or both, each once.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    prune = model.config.prune
    if prune is not None and prune.strategy.by_chance:
        raise ValueError(
            f'importance="{prune.importance}" needs a random key at every call, and an exported '
            "model takes images alone; prune otherwise, as --after-blocks 2 3 --keep-ratio 0.7."
        )
    graphdef, state = nnx.split(model)

    def logits(state, images, implementation):
        return nnx.merge(graphdef, state)(images, implementation=implementation)

    chosen = scans(platforms, batch_size)
    branches = {platform: partial(logits, implementation=scan) for platform, scan in chosen.items()}
    b = export.symbolic_shape("b")[0] if batch_size is None else batch_size
    lower = export.export(
        # The parameters are an argument of the branches, so that the file holds them once.
        jax.jit(lambda images: lax.platform_dependent(state, images, **branches)),
        platforms=platforms,
        disabled_checks=[export.DisabledSafetyCheck.custom_call(name) for name in KERNEL_CALLS],
    )
    try:
        return lower(jax.ShapeDtypeStruct((b, *model.config.image_shape), jnp.float32))
    except RuntimeError as error:
        if "No supported GPU" not in str(error):
            raise
        raise NotImplementedError(
            f"JAX {jax.__version__} compiles the kernel for the GPU of this machine, and finds "
            "none; export on the machine that is to run it, or leave --batch-size out."
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: parse, export. Raises ValueError or OSError, one sentence for people."""
    options = command_line.parse(Options, arguments, description=__doc__ or "")
    command_line.check_out("--out", options.out)
    if options.weights is not None and options.out.resolve() == options.weights.resolve():
        raise ValueError("--out is the weight file itself; choose another name.")
    model, metadata = options.create()
    exported = export_model(model, platforms=options.platforms, batch_size=options.batch_size)
    content = exported.serialize()
    try:
        with replacing(options.out) as file:
            file.write_bytes(content)
    except OSError as error:
        raise OSError(f"{options.out} cannot be written: {error.strerror}.") from error
    print(_summary(options, model, metadata, len(content)))


def _summary(options: Options, model: Backbone, metadata: Metadata, size: int) -> str:
    """What was written, on the first line, and how it is loaded and called."""
    config, batch = model.config, options.batch_size or "b"
    parts = [f"{options.out}: {metadata.model}, {size / 1e6:.1f} MB"]
    chosen = scans(options.platforms, options.batch_size)
    if isinstance(config, SSMConfig):
        parts += [f"{platform} with the scan `{scan}`" for platform, scan in chosen.items()]
    else:
        parts += chosen
    if "pallas_triton" in chosen.values() and isinstance(config, SSMConfig):
        parts.append(f"to be loaded by JAX {jax.__version__}, since kernels change with versions")
    height, width, channels = config.image_shape
    how = metadata.preprocessing
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    path = str(options.out)
    return (
        f"{'; '.join(parts)}\n"
        f'run: jax.export.deserialize(open({path!r}, "rb").read()).call(images)\n'
        f"images: [{batch}, {height}, {width}, {channels}] float32, (pixels / 255 - mean) / std "
        f"with mean [{mean}] and std [{std}]; logits: [{batch}, {config.num_classes}] float32"
    )


if __name__ == "__main__":
    command_line.run(main)
