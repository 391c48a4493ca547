"""What stands before gateways: takes every connection, and gives it to one of them that is there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

# So long a connection waits for a gateway that comes back.
_PATIENCE_S = 20.0
_PAUSE_S = 0.05
_BLOCK = 65536


@dataclass(slots=True)
class Front:
    """Forwards TCP connections to `ports` of the loopback, each to a random one that listens; it waits for one.

    A connection ends at both sides as soon as it ends at one: nobody is left waiting for somebody who is gone.
    """

    ports: Sequence[int]
    random: Random = field(default_factory=Random)
    port: int = 0

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"http://127.0.0.1:{self.port}/openai/v1"

    async def taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                there = await self._reached()
            ways = [asyncio.create_task(_pipe(reader, there[1])), asyncio.create_task(_pipe(there[0], writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].close()
        writer.close()

    async def _reached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            for port in self.random.sample(self.ports, len(self.ports)):
                with contextlib.suppress(ConnectionError):
                    return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(_PAUSE_S)


@contextmanager
def front(*ports: int) -> Iterator[Front]:
    """Serve on a free port until the block ends."""
    made = Front(ports)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(made.taken, "127.0.0.1", 0), loop).result()
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
