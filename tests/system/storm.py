"""Slow clients, many of them: `python -m tests.system.storm FILE COUNT` plays them until its standard input ends.

A third trickles heads, a third trickles bodies, a third asks for the file and reads nothing of it. Who is cut off comes
back. It says `ready` once all of them are there, and at the end how often it was cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import socket
import sys
from urllib.parse import urlsplit

from tests.support.raw import form, head

_DRIP_S = 0.5


class Storm:
    """What the slow clients have in common."""

    def __init__(self, file: str) -> None:
        parts = urlsplit(file)
        self._root, self._path = f"http://{parts.netloc}", parts.path
        self._address = (parts.hostname or "", parts.port or 0)
        self.there: set[int] = set()
        self.cut = 0

    async def client(self, number: int) -> None:
        """One slow client, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as link, contextlib.suppress(OSError):
                link.setblocking(False)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await loop.sock_connect(link, self._address)
                await loop.sock_sendall(link, self._opening(number % 3))
                self.there.add(number)
                await self._drag_on(link, reads=number % 3 < 2)
            self.cut += 1
            await asyncio.sleep(0.05)

    def _opening(self, kind: int) -> bytes:
        if kind == 0:
            return b"GET /openai/v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "
        if kind == 1:
            return head(self._root, 1_000_000).encode() + form(b"\x89PNG")[:-20]
        return f"GET {self._path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()

    async def _drag_on(self, link: socket.socket, *, reads: bool) -> None:
        """Send a byte now and then until the server has had enough."""
        loop = asyncio.get_running_loop()
        half = itertools.chain(b"GET /healthz HTTP/1.1\r\nx-slow: ", itertools.repeat(ord("x")))
        while True:
            await asyncio.sleep(_DRIP_S)
            if not reads:
                # Half a request more: it is seen to fail when the connection is gone.
                await loop.sock_sendall(link, bytes([next(half)]))
                continue
            await loop.sock_sendall(link, b"x")
            with contextlib.suppress(BlockingIOError):
                if link.recv(1 << 16):
                    return  # it was told that it is too slow
                return


async def run(file: str, count: int) -> None:
    """Play until the standard input ends."""
    storm = Storm(file)
    clients = [asyncio.create_task(storm.client(number)) for number in range(count)]
    while len(storm.there) < count:  # noqa: ASYNC110 - it is a set that fills
        await asyncio.sleep(0.05)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    sys.stdout.write(f"{storm.cut}\n")


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
