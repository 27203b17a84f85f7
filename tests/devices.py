"""Scripts on several virtual devices of the CPU, which a process must have from its start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def said_on(script: str, *arguments: str, devices: int) -> Any:
    """Run a script and read the JSON that it prints.

    Args:
      script: Python.
      *arguments: its own.
      devices: how many it has.
    """
    flags = (os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}")
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
