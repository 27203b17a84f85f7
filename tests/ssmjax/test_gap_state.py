"""The figure of a gap: what its lines show is the recurrence, step by step."""

import chex
import numpy as np
import pytest

from ssmjax.analysis.gap_state import STEP, states


@pytest.mark.parametrize(("alignment", "moves"), [("previous", 1), ("none", 0)])
def test_states_are_those_of_a_masked_loop(alignment, moves):
    rng = np.random.default_rng(0)
    u, pruned = rng.normal(size=12), {3, 4, 7, 11}
    kept = [p for p in range(12) if p not in pruned]
    h, expected = 0.0, []
    for position, value in enumerate(u):
        h *= np.exp(-STEP * (1 if position in kept else moves))
        h += STEP * value * (position in kept)
        expected.append(h)
    chex.assert_trees_all_close(states(u, kept, alignment), np.float32(expected), atol=1e-6)
