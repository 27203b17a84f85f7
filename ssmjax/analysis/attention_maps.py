"""Where a state-space model looks: maps made of the hidden attention of its blocks.

Figure 3 of "Exploring Token Pruning in Vision State Space Models" (arXiv 2409.18962) draws them
before and after pruning.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ssmjax.analysis.hidden_attention import mean_attention
from ssmjax.models.backbone import Backbone
from ssmjax.models.config import SSMConfig
from ssmjax.precision import wide_dtype
from ssmjax.pruning.select import gather_tokens

VARIANTS = ("raw", "rollout", "attribution")


def attention_maps(
    model: Backbone,
    images: jax.typing.ArrayLike,
    variant: str = "raw",
    *,
    layer: int | None = None,
    classes: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """How much each patch of an image counts, by the hidden attention of a model's blocks.

    The attention A of a block is what its mixer makes of its scans' `mean_attention`: the mean of
    Vim's two directions, the sum of PlainMamba's four paths. Convolutions and gates are left out.

    - `raw` is the A of one block.
    - `rollout` is `(I + A_depth) ... (I + A_1) - I`, the rows of each A divided by their sums: what
      mixers and residual stream pass on through all blocks ("Quantifying Attention Flow in
      Transformers", arXiv 2005.00928; for scans arXiv 2403.01590).
    - `attribution` is that product of weighted A, not divided: alpha times the derivative of the
      class's logit by alpha, of which the positive part is averaged over channels (arXiv
      2103.15679; arXiv 2403.01590 has one weight per token instead).

    The map is the class token's row or, in a model that averages its tokens instead, the mean of
    all rows. The row of a pruned token ends; its column stays, so that what it gave to others
    before counts in `rollout` and `attribution`.

    Args:
      model: from `ssmjax.create_model`.
      images: [B,height,width,channels], normalised as the weights expect.
      variant: one of `VARIANTS`.
      layer: for `raw`, the block, counted from 1; None is the last.
      classes: for `attribution`, [B] integers; None is the best class of each image.

    Returns:
      maps: [B,H,W] non-negative, to compare cells of one image by.
      positions: [B,K] int32, the tokens present in the last block looked at.

    Raises:
      ValueError: a model without scans, or one that merges tokens; a variant or layer that does not
        exist; images that `model` refuses.
    """
    depth, prune = model.config.depth, model.config.prune
    if not isinstance(model.config, SSMConfig):
        raise ValueError("Hidden attention is what scans do; this model has none.")
    if prune is not None and prune.reduction != "drop":
        raise ValueError(f'reduction is {prune.reduction!r}; maps need "drop".')
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; choose one of {', '.join(VARIANTS)}.")
    if layer is not None and variant != "raw":
        raise ValueError(f"layer is {layer}, but {variant} looks at all blocks; only raw has one.")
    if layer is not None and not 1 <= layer <= depth:
        raise ValueError(f"layer is {layer}; the model has the blocks 1 to {depth}.")
    last = layer or depth
    blocks = (last - 1 if variant == "raw" else 0), last
    return _maps(*nnx.split(model), jnp.asarray(images), classes, variant, blocks)


def cosine_similarity(maps: np.ndarray, others: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """[n] cosines of maps and others [n,H,W], over the cells [n,H,W] that are true.

    It is 0 where one of the two is all zeros.
    """
    maps, others = (np.where(cells, a, 0).reshape(len(a), -1) for a in (maps, others))
    norms = np.linalg.norm(maps, axis=1) * np.linalg.norm(others, axis=1)
    return (maps * others).sum(axis=1) / np.where(norms > 0, norms, 1)


class _Probed(nnx.Module):
    """A projection that adds zeros to its input, to differentiate by them."""

    def __init__(self, projection: nnx.Linear, zeros: jax.Array):
        self.projection, self.zeros = projection, nnx.Param(zeros)

    def __call__(self, y: jax.Array) -> jax.Array:
        return self.projection(y + self.zeros[...][:, : y.shape[1]].astype(y.dtype))


@partial(jax.jit, static_argnums=(0, 4, 5))
def _maps(graphdef, state, images, classes, variant, blocks):
    """See `attention_maps`; of `blocks`, 0-based, the last is excluded."""
    model: Backbone = nnx.merge(graphdef, state)
    config = model.config
    key = jax.random.key(0)  # Where tokens are kept at random, every pass keeps the same.
    _, stages, traced = model(images, key=key, return_positions=True, return_intermediates=True)
    residual, gradients = traced["residual"], None
    if variant == "attribution":
        gradients = _gradients(model, images, classes, key)
    _, parameters = nnx.split(model.blocks)

    batch, length, _ = residual[0].shape
    everything = config.geometry.everywhere(batch)
    # The product less I, of whose ones small entries would lose their digits.
    relevance, present = jnp.zeros((batch, length, length), residual[0].dtype), everything
    after_blocks = config.prune.after_blocks if config.prune else ()
    spans = itertools.pairwise((0, *after_blocks, config.depth))
    for (start, stop), positions in zip(spans, (everything, *stages), strict=True):
        start, stop = max(start, blocks[0]), min(stop, blocks[1])
        if start >= stop:
            continue
        relevance = gather_tokens(relevance, jax.vmap(jnp.searchsorted)(present, positions))
        present = positions
        inputs = jax.tree.map(lambda a: a[start:stop], (parameters, gradients))  # noqa: B023
        relevance = _pass_on(
            model, relevance, positions, (*inputs, jnp.stack(residual[start:stop])), variant
        )

    index = config.class_index
    if index is None:
        maps = relevance.mean(axis=1)
    else:
        place = jnp.argmax(present == index, axis=1, keepdims=True)
        maps = jnp.delete(gather_tokens(relevance, place)[:, 0], index, axis=1)
    return maps.reshape(batch, *config.grid), present


def _pass_on(model, relevance, positions, blocks, variant):
    """[B,K,L] relevance after some blocks between two pruning stages.

    `blocks` are their parameters, the gradients (or None) and what they normalised, all stacked.
    """
    config = model.config
    alignment = config.prune.alignment if config.prune else "none"
    layout = model.layout(
        len(positions), None if positions.shape[1] == config.length else positions
    )
    kept = jax.nn.one_hot(positions, config.length, dtype=relevance.dtype)
    graphdef, _ = nnx.split(model.blocks)

    def through(relevance, block):
        parameters, gradient, residual = block
        block = nnx.merge(graphdef, parameters)
        x, z = jnp.split(block.mixer.in_proj(block.norm(residual)), 2, axis=-1)
        if gradient is not None:
            gradient = gradient[:, : x.shape[1]] * jax.nn.silu(z)
        look = partial(mean_attention, gradient=gradient)
        attention = block.mixer.over_scans(look, x, layout, alignment)
        if variant == "rollout":
            attention = attention / attention.sum(axis=-1, keepdims=True)
        return relevance + jnp.matmul(attention, kept + relevance, precision="highest"), None

    return lax.scan(through, relevance, blocks)[0]


def _gradients(model, images, classes, key):
    """[depth,B,L,E]: of each image's logit, by what enters every `out_proj`.

    Rows are those of the tokens in the block, and zeros after them.
    """
    config = model.config

    def logit(zeros):
        probed = model.with_prune(config.prune)  # A copy.
        probed.blocks.mixer.out_proj = _Probed(probed.blocks.mixer.out_proj, zeros)
        logits = probed(images, key=key)
        chosen = logits.argmax(axis=1) if classes is None else classes
        return jnp.take_along_axis(logits, chosen[:, None], axis=1).sum()

    shape = (config.depth, len(images), config.length, config.channels)
    return jax.grad(logit)(jnp.zeros(shape, wide_dtype(config.dtype)))
