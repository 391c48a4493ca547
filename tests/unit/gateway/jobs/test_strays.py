"""Jobs that a process has by the ledger and does not work on, for the database failed between the two: they end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.imaging.pool import ImagePool
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AttemptRow, JobInterrupted
from gateway.ledger.store import LedgerDown
from tests.support.ledgers import jobs_of, ledger, order, outlast
from tests.unit.gateway.jobs.scripted import candidates, executing, png, provider


def soon(seconds: float = 10) -> float:
    """A moment of the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


async def test_a_job_that_was_taken_and_not_read(imaging: ImagePool, tmp_path: Path) -> None:
    """A connection that is lost between taking a job over and reading its attempts leaves it to nobody for a while."""
    sim = provider("sim", png(), png())
    sim.hold = asyncio.Event()
    async with ledger(tmp_path) as first, ledger(tmp_path) as second:
        before = jobs_of(executing(imaging, sim), first)
        job_ref = await before.place(order(), candidates(["sim"]))
        while not sim.waited:  # noqa: ASYNC110 - a provider's list, not a thing of ours
            await asyncio.sleep(0.005)
        first.processes.unlock()
        await outlast(second)
        after = jobs_of(executing(imaging, sim), second)
        keeper = RecoveryLoop(after, lease_s=1.0)
        whole = second.attempts

        async def lost(job: str) -> list[AttemptRow]:
            second.attempts = whole  # type: ignore[method-assign]
            raise LedgerDown("OperationalError")

        second.attempts = lost  # type: ignore[method-assign]
        with pytest.raises(LedgerDown):
            await keeper.adopt_orphans()
        assert after.active() == []
        for _ in range(2):  # seen once it may be one that is about to begin
            assert after.active() == []
            await keeper.adopt_orphans()
        sim.hold.set()

        assert (await after.wait(job_ref.id, soon())).images
        for job in before.active():
            job.task.cancel()


async def test_a_job_whose_acceptance_nobody_heard_of(imaging: ImagePool, tmp_path: Path) -> None:
    """A job that was written down and whose caller was told that it was not ends, and bought nothing."""
    async with ledger(tmp_path) as opened:
        jobs = jobs_of(executing(imaging, provider("sim")), opened)
        asked = order(mode="background")
        await opened.accept(asked)
        keeper = RecoveryLoop(jobs, lease_s=1.0)
        for _ in range(2):
            assert jobs.active() == []
            await keeper.adopt_orphans()

        with pytest.raises(JobInterrupted):
            await jobs.wait(asked.id, soon())
        found = await opened.read(asked.id)
        assert found is not None
        assert found.spent_nothing


async def test_what_goes_on_or_is_owed_is_no_stray(imaging: ImagePool, tmp_path: Path) -> None:
    """A job at work is not begun twice, and one whose end is owed is not begun again."""
    sim = provider("sim", png(), png())
    sim.hold = asyncio.Event()
    async with ledger(tmp_path) as opened:
        jobs = jobs_of(executing(imaging, sim), opened)
        keeper = RecoveryLoop(jobs, lease_s=1.0)
        job_ref = await jobs.place(order(), candidates(["sim"]))
        while not sim.waited:  # noqa: ASYNC110 - a provider's list, not a thing of ours
            await asyncio.sleep(0.005)
        for _ in range(3):
            await keeper.adopt_orphans()

        async def down(*args: object) -> None:
            raise LedgerDown("down")

        opened.ended = down  # type: ignore[assignment, method-assign]
        sim.hold.set()
        assert (await jobs.wait(job_ref.id, soon())).images
        assert jobs.active() == []
        opened.database._failing = True
        for _ in range(3):
            await keeper._resume_strays()
        assert jobs.active() == []
        assert sim.waited == [sim.jobs[0].id]
