"""The optimiser: AdamW, clipped, by a schedule with a warm-up."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from train.engine.config import OptimConfig

DECAYED = ("kernel", "dt_kernel")  # Last names of the parameters that weight decay acts on.
DROP = 0.1  # Factor of the learning rate at each drop of the schedule "step".
EMBEDDING = ("patch_embed", "cls_token", "pos_embed")  # What comes before the first block.


@functools.cache  # Equal runs get the same object, so that they share a compiled step.
def schedule(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by the number of steps before, those skipped included."""
    if config.schedule != "cosine":
        return functools.partial(_warmed_up, config, steps_per_epoch)
    steps, warmup = total_steps(config, steps_per_epoch), warmup_steps(config, steps_per_epoch)
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_lr if warmup else config.lr,
        peak_value=config.lr,
        warmup_steps=min(warmup, steps - 1),
        decay_steps=steps,
        end_value=min(config.min_lr, config.lr),
    )


def total_steps(config: OptimConfig, steps_per_epoch: int) -> int:
    """How long a run is."""
    return config.steps or max(1, round(config.epochs * steps_per_epoch))


def warmup_steps(config: OptimConfig, steps_per_epoch: int) -> int:
    """How many of them the learning rate rises in."""
    return config.warmup_steps or round(config.warmup_epochs * steps_per_epoch)


def _warmed_up(config: OptimConfig, steps_per_epoch: int, count: jax.typing.ArrayLike) -> jax.Array:
    """Schedules that a warm-up multiplies while they go on, as mmcv's do."""
    count = jnp.asarray(count, jnp.float32)
    if config.schedule == "step":
        drops = [round(epoch * steps_per_epoch) for epoch in config.drop_epochs]
        rate = config.lr * DROP ** sum((count >= drop for drop in drops), jnp.float32(0))
    else:
        share = count / total_steps(config, steps_per_epoch)
        if config.schedule == "full_cosine":
            share = (1 - jnp.cos(jnp.pi * jnp.minimum(share, 1))) / 2
        rate = config.lr + share * (config.min_lr - config.lr)
    warmup = warmup_steps(config, steps_per_epoch)
    start = config.warmup_lr / config.lr if warmup else 1.0
    return rate * (start + (1 - start) * jnp.minimum(count / max(warmup, 1), 1))


@functools.cache
def optimizer(
    config: OptimConfig,
    rate: optax.Schedule,
    breaks: tuple[int, ...] = (),
    decayed: Callable[[nnx.State], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW (arXiv 1711.05101) on the parameters that are not frozen; no state for the others.

    Its `update` takes `step`, the steps of the run before, by which the learning rate goes; without
    it, it goes by the updates before. Adam's correction of its young averages counts updates alone:
    a skipped step adds nothing to them.

    Args:
      config: decay, clipping, what is frozen.
      rate: from `schedule`.
      breaks: the model's, see `ssmjax.Backbone.breaks`; for `config.layer_decay` alone.
      decayed: which parameters decay, a mask of all; None is `decay_mask`.

    Raises:
      ValueError: from `init`, as `frozen_mask`.
    """
    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    mask = decay_mask if decayed is None else decayed
    adamw = optax.chain(
        optax.scale_by_adam(b2=config.b2),
        optax.add_decayed_weights(config.weight_decay, mask),
        _scale_by_rate(rate),
    )
    steps = optax.chain(clip, adamw)
    if config.frozen:
        is_frozen = functools.partial(frozen_mask, frozen=config.frozen)
        steps = optax.partition({False: steps, True: optax.set_to_zero()}, is_frozen)
    layer_decay = config.layer_decay
    if layer_decay is None:
        return steps

    def slow_down(updates, _):
        scales = layer_scales(updates, layer_decay, breaks, blocks=config.layer_decay_blocks)
        return jax.tree.map(jnp.multiply, updates, scales)

    return optax.chain(steps, optax.stateless(slow_down))


def _scale_by_rate(rate: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Scale by minus the rate of the argument `step`, where optax counts its own updates."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.int32(0))

    def update(updates, state, params=None, *, step=None, **others):
        count = state.count if step is None else step
        scale = -jnp.asarray(rate(count))
        updates = jax.tree.map(lambda a: scale.astype(a.dtype) * a, updates)
        return updates, optax.ScaleByScheduleState(count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def decay_mask(params: nnx.State):
    """Matrices and kernels decay, not norms, biases, A_log, D and embeddings.

    It goes by their names, since stacking over blocks hides their rank.
    """
    return jax.tree.map_with_path(lambda path, _: keys(path)[-1] in DECAYED, params)


def frozen_mask(params: nnx.State, frozen: tuple[str, ...]):
    """Which parameters stay as they are; statistics of batch norms go on moving, as PyTorch's do.

    They are those whose dotted names begin so, in whole parts: "head" is no beginning of
    "header.bias".

    Raises:
      ValueError: one begins no name, or nothing is left to train.
    """
    names = [".".join(keys(path)) + "." for path, _ in jax.tree.leaves_with_path(params)]
    first = sorted({name.split(".")[0] for name in names})
    for beginning in frozen:
        if not any(name.startswith(f"{beginning}.") for name in names):
            raise ValueError(
                f"optim.frozen has {beginning!r}, which no parameter's name begins with; they "
                f"begin with {', '.join(first)}."
            )
    beginnings = tuple(f"{beginning}." for beginning in frozen)
    mask = [name.startswith(beginnings) for name in names]
    if all(mask):
        raise ValueError(
            f"optim.frozen is {', '.join(frozen)}, which leaves nothing to train; leave out one "
            f"of {', '.join(first)}."
        )
    return jax.tree.unflatten(jax.tree.structure(params), mask)


def layer_scales(
    params: nnx.State, layer_decay: float, breaks: tuple[int, ...], *, blocks: bool = True
):
    """Factors of the learning rate, as BEiT has them (arXiv 2106.08254): 1 at the head.

    Layer 0 is the embedding, i the i-th block with what follows it alone, and the last, depth + 1,
    all else, such as the final norm and heads; each has `layer_decay` times the rate of the one
    after it. Without `blocks`, these are of the last layer.

    Returns:
      Like `params`: scalars, and for the blocks [depth,1,...], as their parameters are stacked.
    """
    named = [(keys(path), leaf) for path, leaf in jax.tree.leaves_with_path(params)]
    depth = next(leaf.shape[0] for names, leaf in named if "blocks" in names)

    def scale(path, leaf):
        names = keys(path)
        layer = depth + 1
        if not set(EMBEDDING).isdisjoint(names):
            layer = 0
        elif blocks and "dwconvs" in names:
            layer = breaks[int(names[names.index("dwconvs") + 1])]
        elif blocks and "blocks" in names:
            layer = jnp.arange(1, depth + 1).reshape(depth, *(1,) * (leaf.ndim - 1))
        return jnp.asarray(layer_decay ** (depth + 1 - layer), leaf.dtype)

    return jax.tree.map_with_path(scale, params)


def keys(path) -> list[str]:
    """The parts of a parameter's name; in its path, nnx's wrapper comes after them."""
    return [str(entry.key) for entry in path if hasattr(entry, "key")]
