"""A job: the one concept for work. A handler waits for it and may leave; the job stays until it is done."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.jobs.execute import Executor, Finished
from gateway.routing.select import Candidate
from gateway.telemetry import metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work under way. `created` is in seconds since the epoch."""

    id: str
    created: int
    task: asyncio.Task[Finished]

    async def wait(self) -> Finished:
        """Wait for the result. Leaving does not end the job."""
        return await asyncio.shield(self.task)


class Jobs:
    """The jobs of this process."""

    def __init__(self, executor: Executor, *, deadline_s: float) -> None:
        self._executor = executor
        self._deadline_s = deadline_s
        self._running: set[asyncio.Task[Finished]] = set()

    def start(self, candidates: Sequence[Candidate], *, deadline_s: float | None = None) -> Job:
        """Begin to work through the candidates. `deadline_s` is the model's own, where it has one."""
        deadline = asyncio.get_running_loop().time() + (deadline_s or self._deadline_s)
        task = asyncio.create_task(self._executor.run(candidates, deadline))
        self._running.add(task)
        metrics.JOBS.inc()
        task.add_done_callback(self._ended)
        return Job(id=f"img_{secrets.token_hex(12)}", created=int(time.time()), task=task)

    async def drain(self, grace_s: float) -> None:
        """Let the jobs finish for `grace_s` seconds, then cancel what is left."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Finished]) -> None:
        self._running.discard(task)
        metrics.JOBS.dec()
        if not task.cancelled():
            task.exception()  # seen, so that a job nobody waits for is not reported as never retrieved
