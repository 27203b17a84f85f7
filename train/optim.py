"""The optimiser: AdamW, clipped, warmed up, with a cosine at the end."""

import functools

import jax
import optax
from flax import nnx

from train.config import OptimConfig

DECAYED = ("kernel", "dt_kernel")  # Last names of the parameters that weight decay acts on.


@functools.cache  # Equal runs get the same object, so that they share a compiled step.
def schedule(config: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup_epochs else config.lr,
        peak_value=config.lr,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
        decay_steps=max(1, round(config.epochs * steps_per_epoch)),
        end_value=min(config.min_lr, config.lr),
    )


@functools.cache
def optimizer(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW; weight decay on matrices and kernels, not on norms, biases, A_log, D, embeddings."""
    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    return optax.chain(
        clip,
        optax.adamw(rate, b2=config.b2, weight_decay=config.weight_decay, mask=decay_mask),
    )


def decay_mask(params: nnx.State):
    """Which parameters decay: told by name, since stacking over blocks hides their rank."""
    return jax.tree.map_with_path(lambda path, _: _name(path) in DECAYED, params)


def _name(path) -> str:
    """The parameter's own name: the last key of its path (after it comes nnx's wrapper)."""
    keys = [str(entry.key) for entry in path if hasattr(entry, "key")]
    return keys[-1]
