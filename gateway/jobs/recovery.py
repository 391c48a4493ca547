"""Recovery: renews this process's lease, adopts the jobs of dead processes, and ends with the process."""

from __future__ import annotations

import asyncio
import logging

from gateway.jobs.manager import JobManager
from gateway.ledger.store import LedgerDown
from gateway.telemetry.logs import event

# How soon another process's wish to cancel a job of ours is heard, in seconds.
_HEAR_S = 1.0
_ORPHANS = 500


class RecoveryLoop:
    """Keeps a process's jobs, and takes over those of others. `lease_s` is how long it is believed to be alive."""

    def __init__(self, jobs: JobManager, *, lease_s: float) -> None:
        self._jobs = jobs
        self._lease_s = lease_s
        self._strays: set[str] = set()

    async def keep(self) -> None:
        """Renew the lease, take over the jobs of those who are gone, hear of cancels; without end."""
        heartbeat = self._lease_s / 3
        beaten = -heartbeat
        while True:
            try:
                if self._jobs.clock.now() - beaten >= heartbeat:
                    await self._jobs.ledger.processes.heartbeat()
                    beaten = self._jobs.clock.now()
                    await self.adopt_orphans()
                await self._hear_of_cancels()
            except LedgerDown as error:
                event("ledger.unreachable", logging.WARNING, error=str(error))
            await self._jobs.clock.sleep(min(_HEAR_S, heartbeat))

    async def adopt_orphans(self) -> None:
        """Go on with the jobs of processes that are gone. Raises LedgerDown."""
        if self._jobs.leaving.is_set():
            return
        for row in await self._jobs.ledger.adopt_orphans(limit=_ORPHANS):
            self._jobs.take_up(row, await self._jobs.ledger.attempts(row.order.id))
        await self._take_up_strays()

    async def _take_up_strays(self) -> None:
        """Go on with jobs that are this process's by the ledger, and on which it does not work.

        The database failed between the two: it took a job and the answer was lost, or could not say more of it. What is
        seen twice is one; the first time it may be about to begin. Raises LedgerDown.
        """
        ledger = self._jobs.ledger
        if not ledger.database.up:
            return  # what is owed may be their ends
        active = {job.order.id for job in self._jobs.active()}
        found = set(await ledger.own()) - active
        for name in found & self._strays:
            row = await ledger.read(name)
            if row is not None and not row.ended and ledger.database.up:
                event("job.stray", logging.WARNING, job=name)
                self._jobs.take_up(row, await ledger.attempts(name))
        self._strays = found

    async def close(self, until: float, last: float) -> None:
        """End: let jobs finish until `until`, then leave them to others, by `last` (of the jobs' clock).

        What lives in a connection of this process is cancelled; what a provider has is not.
        """
        self._jobs.leaving.set()
        await self._wait(until)
        self._jobs.shutting_down.set()
        for job in self._jobs.active():
            job.recorder.leaving = True
            job.task.cancel()
        await self._wait(last)

    async def _hear_of_cancels(self) -> None:
        active = [job.order.id for job in self._jobs.active()]
        for name in await self._jobs.ledger.cancels(active) if active else ():
            self._jobs.stop(name)

    async def _wait(self, until: float) -> None:
        """Wait for the jobs that go on."""
        if tasks := {job.task for job in self._jobs.active()}:
            await asyncio.wait(tasks, timeout=max(0.1, until - self._jobs.clock.now()))
