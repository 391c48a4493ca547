"""Jobs of synchronous endpoints: each lives in a request that is held open, in this process only.

The answer is kept until the images in it, or at the addresses in it, have been fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from providers.clock import Clock
from providers.errors import Unfinished, Unknown

T = TypeVar("T")

# How long the answer of a job that nobody waits for is kept.
_KEEP_S = 600.0


class HeldRequests(Generic[T]):
    """The requests of a provider that are held open, by the id of their job. Each gives a value of type T."""

    def __init__(self, provider: str, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[T]] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def start(self, job: str, request: Coroutine[Any, Any, T]) -> None:
        """Send a job's request in the background."""
        task = asyncio.create_task(request)
        self._tasks[job] = task
        task.add_done_callback(lambda _: self._keep(job, task))

    async def answer(self, job: str, deadline: float) -> T:
        """Wait for a job's answer until `deadline`, a reading of the clock; it is kept until `let_go`.

        Raises the job's error, Unfinished at the deadline (the job goes on), and Unknown for a job of another process.
        """
        task = self._tasks.get(job)
        if task is None:
            raise Unknown(f"{self._provider}: the job is of another process, and its answer went there")
        self._stay(job)
        left = deadline - self._clock.now()
        if not (await asyncio.wait({task}, timeout=max(0.0, left)))[0]:
            raise Unfinished(f"{self._provider}: the deadline passed, and the job cannot be cancelled")
        if task.cancelled() or task.exception() is not None:
            self.let_go(job)
        if task.cancelled():
            raise Unknown(f"{self._provider}: the connection was closed before the answer")
        return task.result()

    def let_go(self, job: str, *, keep: bool = False) -> None:
        """Forget a job that has ended: at once, or with `keep` after ten minutes, for a caller that waits again."""
        if (task := self._tasks.get(job)) is None:
            return
        if keep and task.done():
            self._keep(job, task)
        else:
            self._forget(job, task)

    async def aclose(self) -> None:
        """Close all connections."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in list(self._tasks):
            self.let_go(job)

    def _keep(self, job: str, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            # It may never be waited for; asyncio would report an exception that was never retrieved.
            task.exception()
        if self._tasks.get(job) is task:
            self._stay(job)
            self._expiries[job] = asyncio.get_running_loop().call_later(_KEEP_S, self._forget, job, task)

    def _stay(self, job: str) -> None:
        if (expiry := self._expiries.pop(job, None)) is not None:
            expiry.cancel()

    def _forget(self, job: str, task: asyncio.Task[T]) -> None:
        if self._tasks.get(job) is task:
            del self._tasks[job]
        self._stay(job)
