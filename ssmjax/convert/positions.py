"""Position embeddings of official files: in what grid they lie, and brought to the model's."""

import math
from collections.abc import Collection

import numpy as np

from ssmjax.layers.pos_embed import resize_pos_embed
from ssmjax.models.config import BackboneConfig

Grid = tuple[int, int]  # Rows and columns of patches.


def patches_of(shape: tuple[int, ...], config: BackboneConfig) -> int | None:
    """How many patches position embeddings [1,L,D] are of; None for a shape that is none's."""
    if len(shape) != 3 or (shape[0], shape[2]) != (1, config.embed_dim):
        return None
    patches = shape[1] - (config.class_index is not None)
    return patches if patches > 0 else None


def source_grid(
    patches: int, config: BackboneConfig, grid: Grid | None, official: Collection[Grid]
) -> Grid:
    """The grid in which the patches of a file lie, which the file itself does not say.

    It is known where they are as many as those of a published model, or of the model that they
    shall fill; not where they may also lie otherwise: as many as those of an oblong model could be
    a square, which is what the official code itself takes them for.

    Args:
      patches: how many there are.
      config: of the model that they shall fill.
      grid: where it is known, of which then only the number is checked.
      official: grids of the published models of this family.

    Raises:
      ValueError: the grid has another number of patches, or is not known; a part of a sentence.
    """
    if grid is not None:
        if grid[0] * grid[1] != patches:
            raise ValueError(f"its {patches} patches do not make the grid given, {_words(grid)}")
        return grid
    candidates = {*official, config.grid}
    if config.grid[0] * config.grid[1] == patches:
        side = math.isqrt(patches)
        candidates.add((side, side))
    known = sorted(g for g in candidates if g[0] * g[1] == patches)
    if len(known) == 1:
        return known[0]
    may = " or as ".join(map(_words, known))
    how = f"may lie as {may}" if known else "lie in a grid that the file does not tell"
    raise ValueError(
        f"its {patches} patches {how}: give their rows and columns, as grid=(H, W) or on the "
        "command line as --grid H W"
    )


def on_grid(embedding: np.ndarray, grid: Grid, config: BackboneConfig) -> np.ndarray:
    """Position embeddings [1,L,D] of patches in a grid, resized to the config's."""
    class_token = config.class_index_among(grid[0] * grid[1]), config.class_index
    return resize_pos_embed(embedding, grid, config.grid, class_token=class_token)


def _words(grid: Grid) -> str:
    return f"{grid[0]} x {grid[1]}"
