"""Looking up strangers' names, on threads of its own: a name server that does not answer holds up nothing else."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

# A thread waits as long as the system does for an answer, 10 to 30 seconds, also when nobody waits for it any more.
_THREADS = 64
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Lookup(AbstractResolver):
    """Asks the system, as aiohttp's own resolver does, but not on the threads that the whole process shares."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lookup")

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError for a name that leads nowhere."""
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._pool, ask)
        return [
            ResolveResult(hostname=host, host=str(at[0]), port=int(at[1]), family=kind, proto=proto, flags=_NUMERIC)
            for kind, _, proto, _, at in found
        ]

    @override
    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
