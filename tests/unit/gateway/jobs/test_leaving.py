"""A process that ends while a provider has not said whether it takes a job: the job is left to the next process."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.imaging.pool import ImagePool, InputLimits
from gateway.jobs.recovery import RecoveryLoop
from tests.support.clock import Skipping
from tests.support.ledgers import jobs_of, ledger, order
from tests.unit.gateway.jobs.scripted import candidates, executing, provider
from tests.unit.gateway.jobs.test_manager import until


def test_what_has_left_is_for_the_next_process(tmp_path: Path) -> None:
    """The event loop ends, and breaks off every task: that tells nothing of what the provider has."""
    sim = provider("sim")
    sim.hold_submit = asyncio.Event()
    troubles: list[Mapping[str, Any]] = []
    imaging = ImagePool(max_pixels=10**7, limits=InputLimits(max_pixels=10**7, max_side=10**4))

    async def process() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: troubles.append(told))
        clock = Skipping()
        async with ledger(tmp_path) as opened:
            executor = executing(imaging, sim, attempt_timeout=600, clock=clock)
            jobs = jobs_of(executor, opened)
            await jobs.place(order(), candidates(["sim"]))
            await until(lambda: sim.jobs, "the submit has left")
            await RecoveryLoop(jobs, lease_s=1.0).close(clock.now(), clock.now())

    asyncio.run(process())
    imaging.close()

    assert not troubles
    attempts = asyncio.run(_attempts(tmp_path))
    assert [(one.state, one.outcome) for one in attempts] == [("submitting", None)]


async def _attempts(folder: Path) -> Any:
    async with ledger(folder) as opened:
        [row] = await opened.adopt_orphans(10)
        assert not row.ended
        return await opened.attempts(row.order.id)
