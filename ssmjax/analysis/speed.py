"""What pruning brings in speed, and what alignment and the choice of tokens take of it.

python -m ssmjax.analysis.speed --model vim_small_patch16_224 --batch-sizes 1 8 [--train]
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from kernels.host_memory import keep_freed_memory
from kernels.timing import medians
from ssmjax import command_line
from ssmjax.analysis.flops import flops
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import SSMConfig
from ssmjax.pruning.config import PruneConfig
from ssmjax.pruning.reduce import Present, reduce_tokens
from ssmjax.registry import create_classifier

LEARNING_RATE = 1e-3
HEADINGS = (
    "batch",
    "what",
    "images/s",
    "speed-up",
    "FLOPs ratio",
    "eta",
    "alignment %",
    "selection %",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What the paper's schedule brings in speed: medians, measured in turn in one process."""

    model: str
    """Name of a model that the paper prunes."""
    batch_sizes: tuple[int, ...] = (1, 8)
    """Images a step; each size is measured on its own."""
    rounds: int = 9
    """Timed runs of each; the median counts."""
    train: bool = False
    """Measure a training step (cross-entropy, gradients, SGD) in place of a forward pass."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One model at one batch size. Where a number says nothing of the model, it is None.

    Attributes:
      batch_size: B.
      what: which model.
      images_per_second: B over the median time.
      speedup: over the dense model.
      flops_ratio: FLOPs of the dense model over this one's, as papers count them.
      eta: share of the gain that the FLOPs promise: (speedup - 1) / (flops_ratio - 1).
      alignment: time over that of the model without alignment, minus 1.
      selection: time of scoring, choosing and gathering tokens, over that of the forward pass.
    """

    batch_size: int
    what: str
    images_per_second: float
    speedup: float
    flops_ratio: float
    eta: float | None = None
    alignment: float | None = None
    selection: float | None = None

    def __str__(self) -> str:
        """A line of the table, under `HEADINGS`."""
        shares = (
            "" if share is None else f"{100 * share:.1f}"
            for share in (self.alignment, self.selection)
        )
        cells = (
            f"{self.batch_size}",
            self.what,
            f"{self.images_per_second:,.1f}",
            f"{self.speedup:.2f}x",
            f"{self.flops_ratio:.3f}",
            "" if self.eta is None else f"{self.eta:.2f}",
            *shares,
        )
        return f"| {' | '.join(cells)} |"


def measure(
    dense: Backbone, prune: PruneConfig, batch_size: int, *, rounds: int, train: bool = False
) -> list[Row]:
    """Time a model dense, pruned, and pruned without alignment, on normally distributed images.

    Args:
      dense: the model.
      prune: how; of an SSM, with an alignment other than `none`.
      batch_size: B.
      rounds: timed runs of each.
      train: time a training step, and not what the choice of tokens takes.

    Raises:
      ValueError: no round, or no image.
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1.")
    models = {"dense": dense, "pruned": dense.with_prune(prune)}
    if isinstance(dense.config, SSMConfig):
        unaligned = dataclasses.replace(prune, alignment="none")
        models["pruned, no alignment"] = dense.with_prune(unaligned)
    images = jax.random.normal(jax.random.key(0), (batch_size, *dense.config.image_shape))
    if train:
        runs = {what: _training_step(model, images) for what, model in models.items()}
    else:
        runs: dict[str, Callable[[], Any]] = {
            what: partial(model, images, key=jax.random.key(0)) for what, model in models.items()
        }
        runs["selection"] = _selection(models["pruned"], images)
    seconds = medians(runs, rounds)
    return list(_rows(batch_size, models, seconds))


def _rows(batch_size: int, models: dict[str, Backbone], seconds: dict[str, float]) -> Iterator[Row]:
    cost = {what: flops(model).published for what, model in models.items()}
    for what in models:
        speedup, ratio = seconds["dense"] / seconds[what], cost["dense"] / cost[what]
        row = Row(batch_size, what, batch_size / seconds[what], speedup, ratio)
        if what != "dense":
            row = dataclasses.replace(row, eta=(speedup - 1) / (ratio - 1))
        if what == "pruned":
            selection = seconds.get("selection")
            unaligned = seconds.get("pruned, no alignment")
            row = dataclasses.replace(
                row,
                alignment=None if unaligned is None else seconds[what] / unaligned - 1,
                selection=None if selection is None else selection / seconds[what],
            )
        yield row


def _training_step(model: Backbone, images: jax.Array) -> Callable[[], Any]:
    """A step of SGD from the model's parameters; the model keeps them."""
    graphdef, params, others = nnx.split(model, nnx.Param, ...)
    labels = jnp.zeros(len(images), jnp.int32)

    def loss_of(params, others, images):
        # Copied, since its statistics change in place.
        model = nnx.merge(graphdef, params, others, copy=True)
        logits = model(images, train=True, key=jax.random.key(0))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, others, images):
        loss, grads = jax.value_and_grad(loss_of)(params, others, images)
        return loss, jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads)

    return partial(step, params, others, images)


def _selection(model: Backbone, images: jax.Array) -> Callable[[], Any]:
    """All pruning stages one after the other, on noise of the shapes that they meet."""
    config, batch, geometry = model.config, images.shape[0], model.config.geometry
    prune: Any = config.prune
    stream = jax.eval_shape(model.embed, jax.ShapeDtypeStruct(images.shape, config.dtype))
    # A ViT's attention is one number a token, what other families tell has their channels.
    width = (config.channels,) if isinstance(config, SSMConfig) else ()

    @partial(jax.jit, static_argnums=0)
    def stage(number, signal, stream, positions, key):
        return reduce_tokens(
            prune,
            Present(stream, positions, None),
            config.kept_tokens[number],
            dataclasses.replace(geometry, stage=number),
            signal=signal,
            key=key,
        )

    def noise(*shape, dtype):
        return jax.random.normal(jax.random.key(len(shape)), (batch, *shape), dtype)

    stages = []
    for number, kept in enumerate(config.kept_tokens):
        if kept == config.image_tokens[number]:
            continue
        tokens = config.image_tokens[number] + geometry.others
        stages.append(
            partial(
                stage,
                number,
                noise(tokens, *width, dtype=config.dtype),
                jax.tree.map(lambda part: noise(tokens, part.shape[-1], dtype=part.dtype), stream),  # noqa: B023
                geometry.everywhere(batch)[:, :tokens],
                jax.random.key(0),
            )
        )
    return lambda: [stage() for stage in stages]


def main() -> None:
    """The command: a Markdown table, a batch size at a time."""
    options = command_line.parse(Options, description=__doc__ or "")
    keep_freed_memory()
    pruned = create_classifier(options.model, prune="paper")
    prune: Any = pruned.config.prune
    dense = pruned.with_prune(None)
    for number, batch_size in enumerate(options.batch_sizes):
        rows = measure(dense, prune, batch_size, rounds=options.rounds, train=options.train)
        if number == 0:
            print(f"| {' | '.join(HEADINGS)} |")
            print(f"|{'|'.join(['--:', '---', *['--:'] * (len(HEADINGS) - 2)])}|")
        print("\n".join(map(str, rows)), flush=True)


if __name__ == "__main__":
    command_line.run(main)
