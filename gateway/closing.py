"""How a process ends: what runs may finish for a while, what remains is left to others, all within the grace time."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from gateway.jobs.manager import Jobs
from gateway.jobs.recovery import Keeper

# Of the grace time: for whom a job is still finished, and until when everything else has to be handed over. What is
# left is for the answers, for the last writes, and for the server itself.
_FINISH, _LAST = 0.7, 0.9


class Closing:
    """Hears the signal that ends this process before the server does: it waits for requests, and those for jobs.

    A signal can only be heard in the main thread; elsewhere the end begins with `finish`.
    """

    def __init__(self, jobs: Jobs, keeper: Keeper, grace_s: float) -> None:
        self._jobs = jobs
        self._keeper = keeper
        self._grace_s = grace_s
        self._began: float | None = None
        self._before: dict[int, Any] = {}
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Closing:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._heard:
                signal.signal(number, before)

    async def finish(self) -> None:
        """Wait for the jobs, or leave them to others, whichever comes first."""
        self._begin()
        assert self._began is not None
        await self._keeper.close(self._began + _FINISH * self._grace_s, self._began + _LAST * self._grace_s)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin)
        before = self._before[number]
        if callable(before):
            before(number, frame)

    def _begin(self) -> None:
        if self._began is None:
            self._began = self._jobs.clock.now()
            self._jobs.leaving.set()
            # Handlers that wait for a job are sent away then: the server waits for them.
            self._loop.call_later(_FINISH * self._grace_s, self._jobs.let_go.set)
