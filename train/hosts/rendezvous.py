"""All processes of a run find each other, or each says in one sentence why not.

They meet on the port that jax will use right after. Left to jax alone, a process that waits in
vain is ended by an abort in C++, which no one can catch (jax 0.10.2 and 0.12.0).
"""

import contextlib
import os
import socket
import struct
import time

PATIENCE = 300.0  # Seconds; a scheduler may start one host minutes after another.

_GREETING = struct.Struct("!II")  # The guest's number, and how many processes it knows of.
_WELCOME = b"!"


def meet(host: str, port: int, processes: int, process: int) -> None:
    """Return once all processes have called this, `PATIENCE` seconds at most.

    Args:
      host: where process 0 runs.
      port: free on that host.
      processes: how many there are.
      process: number of this one.

    Raises:
      ValueError: the port is taken, process 0 cannot be reached, others do not come, or two give
        themselves the same number or different counts.
    """
    deadline = time.monotonic() + PATIENCE
    if process == 0:
        _receive(port, processes, deadline)
    else:
        _visit(host, port, processes, process, deadline)


def _receive(port: int, processes: int, deadline: float) -> None:
    six = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if six else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=six)
    except OSError as error:
        raise ValueError(
            f"Process 0 cannot listen on port {port} of --distributed.coordinator "
            f"({os.strerror(error.errno or 0)}); choose a free port."
        ) from error
    missing, waiting = set(range(1, processes)), []
    with server, contextlib.ExitStack() as guests:
        while missing:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                guest = guests.enter_context(server.accept()[0])
                guest.settimeout(10)
                greeting = guest.recv(_GREETING.size, socket.MSG_WAITALL)
            except TimeoutError as error:
                names = ", ".join(map(str, sorted(missing)))
                raise ValueError(
                    f"Of {processes} processes, {names} did not come within {PATIENCE:g} s; start "
                    "each with the same --distributed.coordinator and its own "
                    "--distributed.process."
                ) from error
            if len(greeting) < _GREETING.size:  # A scan of ports, not one of ours.
                continue
            number, count = _GREETING.unpack(greeting)
            if count != processes or number not in missing:
                raise ValueError(
                    f"A process came as --distributed.process {number} of {count}, to process 0 "
                    f"of {processes}; give all the same count, and each its own number."
                )
            missing.remove(number)
            waiting.append(guest)
        for guest in waiting:
            guest.sendall(_WELCOME)


def _visit(host: str, port: int, processes: int, process: int, deadline: float) -> None:
    place = f"process 0 at {host}:{port}"
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=10)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"Process {process} cannot reach {place} within {PATIENCE:g} s "
                    f"({error.strerror or error}); check --distributed.coordinator, and that "
                    "process 0 runs."
                ) from error
            time.sleep(0.2)
    with connection:
        # Process 0 complains of who is missing; it knows better, so it comes first.
        connection.settimeout(max(deadline - time.monotonic(), 0) + 10)
        try:
            connection.sendall(_GREETING.pack(process, processes))
            welcome = connection.recv(len(_WELCOME))
        except OSError:
            welcome = b""
    if welcome != _WELCOME:
        raise ValueError(
            f"Process {process} reached {place}, which then stopped; see what it says."
        )
