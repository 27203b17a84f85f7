"""Golden fixtures of the dense tasks."""

import functools

import pytest

from tests.oracles import downstream as golden_downstream


@pytest.fixture(scope="session")
def downstream():
    """Load a case by name, once: see `tests.oracles.downstream.Case`."""
    return functools.cache(golden_downstream.load)
