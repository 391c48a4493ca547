"""Segmind's v1 jobs: each lives in a request that is held open, and in this process alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from providers.base import Expired, Handle, Outcome, Unknown
from providers.clock import Clock
from providers.segmind_answer import NAME

# How long the outcome of a job that nobody waits for is kept.
_KEEP_S = 600.0


class Held:
    """The requests that are held open, by the id of their job. An outcome is given once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}

    def begin(self, name: str, making: Coroutine[Any, Any, Outcome]) -> Handle:
        """Begin to make a job beside everything else."""
        task = asyncio.create_task(making)
        self._tasks[name] = task
        task.add_done_callback(partial(self._keep, name))
        return Handle(provider=NAME, id=name, data={"api": "v1"}, held=True)

    async def outcome(self, name: str, deadline: float) -> Outcome:
        """Wait for a job until `deadline`. Raises what it failed with, Expired, and Unknown."""
        task = self._tasks.get(name)
        if task is None:
            raise Unknown(f"{NAME}: the job is of another process, and its answer went there")
        left = deadline - self._clock.now()
        if not (await asyncio.wait({task}, timeout=max(0.0, left)))[0]:
            raise Expired(f"{NAME}: the deadline passed")
        self._tasks.pop(name, None)
        if task.cancelled():
            raise Unknown(f"{NAME}: the connection was closed before the answer")
        return task.result()

    async def aclose(self) -> None:
        """Hang up on all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, name: str, task: asyncio.Task[Outcome]) -> None:
        if not task.cancelled():
            # Nobody may ever ask; asyncio calls that an error nobody saw.
            task.exception()
        asyncio.get_running_loop().call_later(_KEEP_S, self._tasks.pop, name, None)
