"""Which cases of a test are quick enough for every run."""

from typing import Any

import pytest


def slow_unless(quick: bool, *values: Any) -> Any:
    """A case of `pytest.mark.parametrize`, left to the slow tests unless it is a quick one."""
    return pytest.param(*values, marks=() if quick else pytest.mark.slow)
