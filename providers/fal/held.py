"""fal's synchronous host: the answer to the request that submits a job is its result.

A job there is a request that this process holds open. Nobody else can be asked for the result: where the answer is
lost, it is Unknown whether the job ran and was billed.
"""

from __future__ import annotations

import asyncio

from providers.clock import CLOCK, Clock
from providers.errors import Unknown
from providers.fal.queue import QueueResult
from providers.fal.responses import NAME
from providers.kit.held import HeldRequests


class HeldRuns(HeldRequests[QueueResult]):
    """The jobs of this process that are held open, by our own ids. Unlike others, they can be given up."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        super().__init__(NAME, clock)

    async def wait(self, job: str, deadline: float) -> QueueResult:
        """Wait for a job's answer, which is kept until `let_go`. At `deadline` its request is closed.

        Raises Unknown at the deadline, and where the answer is lost.
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

    async def cancel(self, job: str) -> None:
        """Close a job's request. Does nothing for one that has ended, or is not of this process.

        Raises Unknown where its answer is lost or it was running: fal may go on with it, and bill it.
        """
        if (task := self._tasks.get(job)) is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled() or isinstance(task.exception(), Unknown):
            raise Unknown(f"{NAME}: the request was given up, and the job may go on")
