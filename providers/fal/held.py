"""fal's synchronous host: the answer to the request that submits a job is its result.

So a job there is a task of this process that holds that request open. Nothing else can tell what came of it: where the
answer is lost, it is Unknown whether the job ran and was billed. Once it is there it is kept until the pictures that it
names have been fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from providers.clock import CLOCK, Clock
from providers.errors import Unknown
from providers.fal.queue import QueueResult
from providers.fal.responses import NAME

# How long the result of a job that nobody waits for is kept.
_KEEP_S = 600.0


class HeldRuns:
    """The jobs of this process that are held open, by our own ids."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[QueueResult]] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def start(self, job: str, work: Coroutine[None, None, QueueResult]) -> None:
        """Begin the work of a job."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._keep(job, task))
        self._tasks[job] = task

    async def wait(self, job: str, deadline: float) -> QueueResult:
        """Wait for a job's answer, which stays until `let_go`. At `deadline` the job is given up.

        Raises Unknown for that, and where its answer is lost.
        """
        task = self._tasks.get(job)
        if task is None:
            raise Unknown(f"{NAME}: the job is not of this process, and its answer is lost")
        self._stay(job)
        left = deadline - self._clock.now()
        done, _ = await asyncio.wait({task}, timeout=max(0.0, left))
        try:
            if not done:
                await self.cancel(job)
            if task.cancelled():
                raise Unknown(f"{NAME}: the request was given up, and the job may have run")
            return task.result()
        except BaseException:
            self.let_go(job)
            raise

    def let_go(self, job: str, *, keep: bool = False) -> None:
        """Forget a job that has ended: at once, or with `keep` after a while, for whoever comes back for its result."""
        if (task := self._tasks.get(job)) is None:
            return
        if keep and task.done():
            self._keep(job, task)
        else:
            self._forget(job, task)

    async def cancel(self, job: str) -> None:
        """Give a job's request up. Does nothing for one that has ended, or is not of this process.

        Raises Unknown where its answer is lost or it was at work: fal may go on with it, and bill it.
        """
        if (task := self._tasks.get(job)) is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled() or isinstance(task.exception(), Unknown):
            raise Unknown(f"{NAME}: the request was given up, and the job may go on")

    async def aclose(self) -> None:
        """Give all requests up."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for expiry in self._expiries.values():
            expiry.cancel()
        self._tasks.clear()
        self._expiries.clear()

    def _keep(self, job: str, task: asyncio.Task[QueueResult]) -> None:
        """Keep an ended job for a while, for a `wait` that comes late."""
        if not task.cancelled():
            # Nobody may ever ask; asyncio calls that an error nobody saw.
            task.exception()
        if self._tasks.get(job) is task:
            self._stay(job)
            self._expiries[job] = asyncio.get_running_loop().call_later(_KEEP_S, self._forget, job, task)

    def _stay(self, job: str) -> None:
        if (expiry := self._expiries.pop(job, None)) is not None:
            expiry.cancel()

    def _forget(self, job: str, task: asyncio.Task[QueueResult]) -> None:
        if self._tasks.get(job) is task:
            del self._tasks[job]
            # Its timer would keep the pictures in memory until it runs out.
            if (expiry := self._expiries.pop(job, None)) is not None:
                expiry.cancel()
