"""A job that ends every process that takes it up, over a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.imaging.pool import ImagePool
from gateway.jobs.errors import MOST_KILLS
from gateway.jobs.manager import JobManager
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AllFailed
from gateway.ledger.store import Ledger
from tests.support.clock import Skipping
from tests.support.fake_cog import until
from tests.support.ledgers import jobs_of, ledger, order, outlast
from tests.unit.gateway.jobs.scripted import Scripted, candidates, executing, png, provider


def kill(opened: Ledger) -> None:
    """End a process as SIGKILL does, as far as others see."""
    opened.processes.unlock()
    opened.database._closed = True
    opened.database.write_behind = lambda operation: None  # type: ignore[method-assign]


async def test_it_is_given_up_after_some_tries(imaging: ImagePool, tmp_path: Path) -> None:
    """It is taken up as often as that, its outcome stays unknown with its estimate, and nothing is bought again."""
    sim = provider("sim", *(png() for _ in range(20)))
    sim.hold = asyncio.Event()
    clock = Skipping()

    def process(opened: Ledger, over: Scripted) -> JobManager:
        return jobs_of(executing(imaging, over, attempt_timeout=600, clock=clock), opened)

    asked = order(idempotency_key="k")
    async with ledger(tmp_path) as opened:
        await process(opened, sim).place(asked, candidates(["sim"]))
        await until(lambda: sim.waited)
        kill(opened)
    for number in range(1, MOST_KILLS + 1):
        async with ledger(tmp_path) as opened:
            jobs = process(opened, sim)
            await outlast(opened)
            await RecoveryLoop(jobs, lease_s=1.0).adopt_orphans()
            if number == MOST_KILLS:
                with pytest.raises(AllFailed, match="abandoned"):
                    await jobs.wait(asked.id, clock.after(600))
                [attempt] = await opened.attempts(asked.id)
                assert (attempt.state, attempt.cost) == ("unknown", 30_000)
            else:
                await until(lambda: len(sim.waited) > number)  # noqa: B023
                kill(opened)

    assert len(sim.waited) == MOST_KILLS
    assert len(sim.jobs) == 1


async def test_leaving_in_good_order_counts_for_nothing(imaging: ImagePool, tmp_path: Path) -> None:
    """A job that is handed on at each deployment is no killer."""
    sim = provider("sim", *(png() for _ in range(20)))
    sim.hold = asyncio.Event()
    clock = Skipping()
    asked = order()
    async with ledger(tmp_path) as opened:
        jobs = jobs_of(executing(imaging, sim, attempt_timeout=600, clock=clock), opened)
        await jobs.place(asked, candidates(["sim"]))
        await until(lambda: sim.waited)
        await RecoveryLoop(jobs, lease_s=1.0).close(clock.now(), clock.now())
    async with ledger(tmp_path) as opened:
        [row] = await opened.adopt_orphans(10)

    assert row.kills == 0
