"""Segmind's v1 jobs: each lives in a request that is held open, and in this process alone.

Its answer is kept until the pictures in it, or at the addresses in it, have been fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from providers.base import Handle
from providers.clock import Clock
from providers.errors import Expired, Unknown
from providers.kit.results import Named
from providers.segmind.responses import NAME

# How long the answer of a job that nobody waits for is kept.
_KEEP_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a v1 job's answer holds: its pictures or their addresses, its run time in seconds, its cost."""

    found: Sequence[Named] = field(repr=False)
    seconds: float | None
    cost: int | None


class HeldRequests:
    """The requests that are held open, by the id of their job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[Answered]] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def begin(self, name: str, making: Coroutine[Any, Any, Answered]) -> Handle:
        """Begin to make a job beside everything else."""
        task = asyncio.create_task(making)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._keep(name, task))
        return Handle(provider=NAME, id=name, data={"api": "v1"}, held=True)

    async def answer(self, name: str, deadline: float) -> Answered:
        """Wait for a job's answer until `deadline`; it stays until `let_go`.

        Raises what the job failed with, Expired, and Unknown.
        """
        task = self._tasks.get(name)
        if task is None:
            raise Unknown(f"{NAME}: the job is of another process, and its answer went there")
        self._stay(name)
        left = deadline - self._clock.now()
        if not (await asyncio.wait({task}, timeout=max(0.0, left)))[0]:
            raise Expired(f"{NAME}: the deadline passed")
        if task.cancelled() or task.exception() is not None:
            self.let_go(name)
        if task.cancelled():
            raise Unknown(f"{NAME}: the connection was closed before the answer")
        return task.result()

    def let_go(self, name: str, *, keep: bool = False) -> None:
        """Forget a job that has ended: at once, or with `keep` after a while, for whoever comes back for its result."""
        if (task := self._tasks.get(name)) is None:
            return
        if keep and task.done():
            self._keep(name, task)
        else:
            self._forget(name, task)

    async def aclose(self) -> None:
        """Hang up on all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in list(self._tasks):
            self.let_go(name)

    def _keep(self, name: str, task: asyncio.Task[Answered]) -> None:
        if not task.cancelled():
            # Nobody may ever ask; asyncio calls that an error nobody saw.
            task.exception()
        if self._tasks.get(name) is task:
            self._stay(name)
            self._expiries[name] = asyncio.get_running_loop().call_later(_KEEP_S, self._forget, name, task)

    def _stay(self, name: str) -> None:
        if (expiry := self._expiries.pop(name, None)) is not None:
            expiry.cancel()

    def _forget(self, name: str, task: asyncio.Task[Answered]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        self._stay(name)
