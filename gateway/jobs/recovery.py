"""Recovery: renews this process's lease, adopts the jobs of dead processes, and handles the shutdown."""

from __future__ import annotations

import asyncio
import logging

from gateway.jobs.manager import JobManager
from gateway.ledger.store import LedgerDown
from gateway.telemetry.logs import event

# The interval at which cancellations requested through other processes are read, in seconds.
_CANCEL_POLL_S = 1.0
_ORPHANS = 500


class RecoveryLoop:
    """Renews a process's lease and adopts jobs of dead processes. `lease_s` is the lease's duration in seconds."""

    def __init__(self, jobs: JobManager, *, lease_s: float) -> None:
        self._jobs = jobs
        self._lease_s = lease_s
        self._strays: set[str] = set()

    async def keep(self) -> None:
        """Renew the lease, adopt orphaned jobs and handle cancellations, until cancelled."""
        heartbeat = self._lease_s / 3
        beaten = -heartbeat
        while True:
            try:
                if self._jobs.clock.now() - beaten >= heartbeat:
                    await self._jobs.ledger.processes.heartbeat()
                    beaten = self._jobs.clock.now()
                    await self.adopt_orphans()
                await self._apply_cancellations()
            except LedgerDown as error:
                event("ledger.unreachable", logging.WARNING, error=str(error))
            await self._jobs.clock.sleep(min(_CANCEL_POLL_S, heartbeat))

    async def adopt_orphans(self) -> None:
        """Resume the jobs of dead processes. Raises LedgerDown."""
        if self._jobs.leaving.is_set():
            return
        for row in await self._jobs.ledger.adopt_orphans(limit=_ORPHANS):
            self._jobs.resume(row, await self._jobs.ledger.attempts(row.order.id))
        await self._resume_strays()

    async def _resume_strays(self) -> None:
        """Resume jobs that belong to this process by the ledger, but that it does not work on.

        This happens when the database fails after it has stored a job, or before it can store its end. A job counts as
        a stray the second time it is seen; the first time it may be about to start. Raises LedgerDown.
        """
        ledger = self._jobs.ledger
        if not ledger.database.up:
            return  # pending writes may contain their ends
        active = {job.order.id for job in self._jobs.active()}
        found = set(await ledger.own()) - active
        for name in found & self._strays:
            row = await ledger.read(name)
            if row is not None and not row.ended and ledger.database.up:
                event("job.stray", logging.WARNING, job=name)
                self._jobs.resume(row, await ledger.attempts(name))
        self._strays = found

    async def close(self, until: float, last: float) -> None:
        """Shut down: let jobs finish until `until`, then leave them to other processes, by `last` (of the jobs' clock).

        A job held in a connection of this process is cancelled; a job at a provider is not.
        """
        self._jobs.leaving.set()
        await self._wait(until)
        self._jobs.shutting_down.set()
        for job in self._jobs.active():
            job.recorder.leaving = True
            job.task.cancel()
        await self._wait(last)

    async def _apply_cancellations(self) -> None:
        active = [job.order.id for job in self._jobs.active()]
        for name in await self._jobs.ledger.cancels(active) if active else ():
            self._jobs.stop(name)

    async def _wait(self, until: float) -> None:
        """Wait for the running jobs, at most until `until`."""
        if tasks := {job.task for job in self._jobs.active()}:
            await asyncio.wait(tasks, timeout=max(0.1, until - self._jobs.clock.now()))
