"""Ports of the loopback: one for a server that is about to start, and one at which nobody ever listens."""

import atexit
import itertools
import os
import socket

# Below the range from which systems give ports to connections (from 32768 on Linux, from 49152 elsewhere), so that no
# connection takes one between the look and the start of its server. Processes begin apart from each other.
_FIRST, _LAST = 20_000, 32_000
_ports = itertools.cycle(range(_FIRST, _LAST))
for _ in range(os.getpid() * 97 % (_LAST - _FIRST)):
    next(_ports)


def listener(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket that listens, on a free port where none is given.

    Servers write an answer in two pieces. Without the option the second waits until the client confirms the first,
    for 40 ms; uvloop sets it by itself, asyncio does not for a socket that is handed in.
    """
    made = socket.create_server((host, port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def free_port() -> int:
    """A port that a server may take, soon."""
    for port in itertools.islice(_ports, _LAST - _FIRST):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError(f"no free port in {_FIRST}-{_LAST}")


def dead_port() -> int:
    """A port that refuses connections for as long as this process lives: it is bound, and nobody listens."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    atexit.register(held.close)
    return int(held.getsockname()[1])
