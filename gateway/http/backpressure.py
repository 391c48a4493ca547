"""How fast a client takes its answer: what is written for it may not lie in memory for as long as it likes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

# What the system itself holds of an answer before it is on its way. With its usual megabytes a slow reader takes
# nothing for a minute and then all at once.
_UNSENT_BYTES = 128 << 10
_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class ClientReader:
    """What a client takes, against a floor in bytes a second, while something is written for it.

    It may be behind by as much as the floor gives in `patience_s`, and what it took faster before it has taken: a
    client that takes nothing is too slow after just that time, one at half the floor after twice as long.
    """

    def __init__(self, floor: float, patience_s: float) -> None:
        self._floor = floor
        self._most = floor * patience_s
        self._behind = 0.0
        self._taken = 0
        self._at: float | None = None

    def is_late(self, now: float, taken: int, unsent: int) -> bool:
        """Look at a client that has taken so many bytes in all, and for whom so many lie here."""
        if not unsent:
            # It waits for us.
            self._behind, self._at = 0.0, None
        else:
            if self._at is not None:
                self._behind = max(0.0, self._behind + self._floor * (now - self._at) - (taken - self._taken))
            self._at = now
        self._taken = taken
        return self._behind >= self._most


class CountingTransport:
    """A transport that knows how much was written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, and count."""
        self.written += len(data)
        self._transport.write(data)


def hold_little(transport: asyncio.Transport) -> None:
    """Have the system say that it takes no more once a little of what is written has not left."""
    connection = transport.get_extra_info("socket")
    if _LOWAT is not None and connection is not None:
        with contextlib.suppress(OSError):  # such as on a socket that is none of TCP
            connection.setsockopt(socket.IPPROTO_TCP, _LOWAT, _UNSENT_BYTES)
