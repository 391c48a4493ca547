"""The client's connection: waits for a job on its behalf, and detects that it disconnects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from gateway.jobs.errors import JobPending, JobRef, JobResult
from gateway.jobs.manager import JobManager

T = TypeVar("T")

# Of the event loop: one to see that the other side has closed, one to close, one to tell of it; and one to spare.
_TURNS = 4


class ClientDisconnected(Exception):
    """The client has disconnected: nobody reads the answer."""


class ClientConnection:
    """A client that waits for a job. `close` has to be called once it is answered, or has disconnected."""

    def __init__(self, request: Request, jobs: JobManager, job_ref: JobRef) -> None:
        self._jobs = jobs
        self._placed = job_ref
        self._open = True
        self._leaving = asyncio.create_task(disconnected(request))
        self._ending = asyncio.create_task(jobs.shutting_down.wait())

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        return self._leaving.done()

    async def wait(self, until: float) -> JobResult:
        """Wait for the job.

        Raises what `JobManager.wait` raises, ClientDisconnected, and JobPending also if this process shuts down.
        """
        waiting = asyncio.create_task(self._jobs.wait(self._placed.id, until))
        try:
            await asyncio.wait({waiting, self._leaving, self._ending}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if self.gone:
                raise ClientDisconnected
            raise JobPending
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await waiting

    async def left(self) -> None:
        """Wait until the client disconnects."""
        await asyncio.wait({self._leaving})

    def close(self, *, delivered: bool) -> None:
        """Release the job: the whole answer was sent, or the client has disconnected."""
        if self._open:
            self._open = False
            self._jobs.leave(self._placed, delivered=delivered and not self.gone)
            self._leaving.cancel()
            self._ending.cancel()


async def disconnected(request: Request) -> None:
    """Return once the connection ends. The body has been read before, or is ignored."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def is_gone(request: Request) -> bool:
    """Whether the connection has ended, even if this process was too busy to notice so far."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return await request.is_disconnected()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do work before a job is started; it is cancelled once the client disconnects.

    Raises what it raises, and ClientDisconnected.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
