"""SIGTERM stops between two steps, in all processes at the same one."""

import os
import signal

import pytest

from ssmjax import command_line
from tests.train.processes import free_port, run_processes
from train.engine.interrupt import Interrupt


def test_noted_while_entered_only():
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("before"))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with Interrupt() as interrupt:
            assert not interrupt.requested(1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.requested(2) and interrupt.requested(3) and not heard
        assert signal.getsignal(signal.SIGTERM) is mine
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["before"]
        with Interrupt() as interrupt:
            assert not interrupt.requested(4)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_stops_at_once(capsys):
    def main():
        with Interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            print("went on")

    # A shell that starts the tests in the background has them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stop:
            command_line.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (stop.value.code, *capsys.readouterr()) == (130, "", "stopped.\n")


STEPS = """
import os, signal, sys, time
import jax
from train.hosts.devices import start_distributed
from train.engine.interrupt import Interrupt
from train.hosts.options import DistributedOptions

coordinator, process = sys.argv[1], int(sys.argv[2])
start_distributed(DistributedOptions(coordinator, 2, process))
with Interrupt() as interrupt:
    for step in range(1, 2000):
        time.sleep(0.01 + 0.01 * process)
        if process and step == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        if interrupt.requested(step):
            print(step)
            break
"""


def test_two_processes_stop_at_the_same_step():
    """The signal comes to one of them, the slower one, which is some steps behind."""
    coordinator = f"localhost:{free_port()}"
    results = run_processes([("-c", STEPS, coordinator, process) for process in range(2)])
    assert [code for code, _, _ in results] == [0, 0], results
    first, second = (int(out) for _, out, _ in results)
    assert first == second and first > 20
