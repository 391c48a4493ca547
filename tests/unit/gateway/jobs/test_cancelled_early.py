"""A job that is cancelled between its submit and the note of which job the provider made of it."""

import asyncio
import threading
from pathlib import Path

from gateway.imaging.pool import ImagePool, InputLimits
from providers.base import Handle
from providers.clock import CLOCK
from tests.support.ledgers import jobs_of, ledger, order
from tests.unit.gateway.jobs.scripted import candidates, executing, png, provider
from tests.unit.gateway.jobs.test_manager import until


async def test_while_the_handle_is_written_down(tmp_path: Path) -> None:
    """The provider has answered, the ledger not yet: the job is cancelled there, and what came of it is kept."""
    sim = provider("sim", png())
    sim.hold_submit, sim.hold = asyncio.Event(), asyncio.Event()
    writing, written = threading.Event(), threading.Event()
    imaging = ImagePool(max_pixels=10**7, limits=InputLimits(max_pixels=10**7, max_side=10**4))

    def wait_for_it(connection: object) -> None:
        writing.set()
        written.wait(60)

    async with ledger(tmp_path) as opened:
        jobs = jobs_of(executing(imaging, sim, attempt_timeout=600), opened)
        job = await jobs.place(order(), candidates(["sim"]))
        await until(lambda: sim.jobs, "the submit has left")
        opened.database.write_behind(wait_for_it)
        await until(writing.is_set, "the ledger is busy")
        sim.hold_submit.set()
        await asyncio.sleep(0.05)  # the provider's answer is here, and waits for the ledger
        cancelling = asyncio.create_task(jobs.cancel(job.id, CLOCK.now() + 30))
        await asyncio.sleep(0.05)  # the job has been told
        written.set()
        await cancelling

        assert sim.cancelled == [sim.jobs[0].id]
        found = await opened.read(job.id)
        assert found is not None
        assert (found.state, len((found.result or {})["pictures"])) == ("completed", 1)
    imaging.close()


async def test_while_another_processs_job_is_searched(tmp_path: Path) -> None:
    """The same for a job that was taken over: it is found first, and then cancelled."""
    sim = provider("sim", png())
    sim.hold_submit = asyncio.Event()
    imaging = ImagePool(max_pixels=10**7, limits=InputLimits(max_pixels=10**7, max_side=10**4))
    searching, found = asyncio.Event(), asyncio.Event()

    async def search(sent: object) -> Handle:
        searching.set()
        await found.wait()
        return Handle(provider="sim", id=sim.jobs[0].id)

    async with ledger(tmp_path) as first:
        jobs = jobs_of(executing(imaging, sim, attempt_timeout=600), first)
        job = await jobs.place(order(), candidates(["sim"]))
        await until(lambda: sim.jobs, "the submit has left")
        [live] = jobs.active()
        live.recorder.leaving = True
        attempts = await first.attempts(job.id)
        row = await first.read(job.id)
        assert row is not None

        sim.recover = search  # type: ignore[method-assign]
        others = jobs_of(executing(imaging, sim, attempt_timeout=600), first)
        others.resume(row, attempts)
        await searching.wait()
        cancelling = asyncio.create_task(others.cancel(job.id, CLOCK.now() + 30))
        await asyncio.sleep(0.05)  # the job has been told
        found.set()
        await cancelling

        assert sim.cancelled == [sim.jobs[0].id]
        sim.hold_submit.set()
        live.task.cancel()
        await asyncio.wait({live.task})
    imaging.close()
