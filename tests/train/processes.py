"""Several processes that form one run, over the loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def run_processes(
    commands: Sequence[Sequence[object]],
    *,
    timeout: float = 120,
    until: Callable[[], bool] = lambda: False,
) -> list[tuple[int, str, str]]:
    """Run Python in several processes at once; when one fails, the others are killed.

    Args:
      commands: what follows `python` in each, such as ("-m", "train.finetune", ...).
      timeout: seconds after which all are killed.
      until: says when to kill them all before.

    Returns:
      (exit status, stdout, stderr) of each, in order; the status of a killed one is negative.
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        started, outputs = [], []
        for command in commands:
            # Files: a full pipe that nobody empties would stop the process.
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=err,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
            outputs.append((out, err))
        while any(process.poll() is None for process in started):
            if until() or time.monotonic() > deadline or any(process.poll() for process in started):
                break
            time.sleep(0.05)
        for process in started:
            process.kill()
        codes = [process.wait() for process in started]
        for out, err in outputs:
            out.seek(0)
            err.seek(0)
        return [
            (code, out.read(), err.read()) for code, (out, err) in zip(codes, outputs, strict=True)
        ]


def distributed(coordinator: str, processes: int, process: int) -> tuple[str, ...]:
    """The options of process number `process`, as the command line takes them."""
    return (
        "--distributed.coordinator",
        coordinator,
        "--distributed.processes",
        str(processes),
        "--distributed.process",
        str(process),
    )
