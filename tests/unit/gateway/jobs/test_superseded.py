"""A process that was paused for longer than its lease: what it has paid for is kept, and it buys nothing more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.imaging.pool import ImagePool
from gateway.jobs.errors import JobPending
from gateway.jobs.manager import JobManager
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AllFailed, JobRow
from gateway.ledger.reports import Reports
from gateway.ledger.store import LeaseLost
from gateway.process import ahead
from providers.base import Handle
from providers.errors import Failed, Unknown
from tests.support.ledgers import jobs_of, ledger, order, outlast
from tests.unit.gateway.jobs.scripted import Scripted, Shelf, candidates, executing, png, provider


class Two:
    """The process that is paused and the one that takes over, with a store that both have."""

    def __init__(self, imaging: ImagePool, folder: Path, stack: AsyncExitStack) -> None:
        self._imaging = imaging
        self._folder = folder
        self._stack = stack
        self._shelf = Shelf()

    async def process(self, *providers: Scripted) -> JobManager:
        """A process without a lock: known by its lease alone, as over a Postgres."""
        opened = await self._stack.enter_async_context(ledger(self._folder))
        opened.processes.unlock()
        opened.processes._locks = None
        return jobs_of(executing(self._imaging, *providers, shelf=self._shelf, attempt_timeout=20), opened)


@pytest.fixture
async def two(imaging: ImagePool, tmp_path: Path) -> AsyncIterator[Two]:
    """An empty database."""
    async with AsyncExitStack() as stack:
        yield Two(imaging, tmp_path, stack)


def soon(seconds: float = 10) -> float:
    """A moment of the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to be true."""
    end = soon()
    while not condition():
        assert soon(0) < end, what
        await asyncio.sleep(0.005)


async def take_over(jobs: JobManager) -> None:
    """Let a lease pass, and take what is left over."""
    await outlast(jobs.ledger)
    await RecoveryLoop(jobs, lease_s=1.0).adopt_orphans()


async def row(jobs: JobManager, job: str) -> JobRow:
    """A job as it is written down."""
    found = await jobs.ledger.read(job)
    assert found is not None
    return found


async def test_a_picture_in_hand_of_a_job_that_is_unknown(two: Two) -> None:
    """The next process cannot find the job and gives it up; the picture that comes after all is the job's, billed."""
    paused, other = provider("sim", png(), cost=12_345), provider("sim")
    paused.held, paused.hold, other.found = True, asyncio.Event(), Unknown("nobody knows")
    before, after = await two.process(paused), await two.process(other)
    asked = order(idempotency_key="k", webhook_url="https://example.com/hook")
    job_ref = await before.place(asked, candidates(["sim"]))
    await until(lambda: paused.waited, "at work")
    await take_over(after)
    with pytest.raises(AllFailed):
        await after.wait(job_ref.id, soon())
    assert (await row(after, job_ref.id)).state == "failed"

    paused.hold.set()
    assert (await before.wait(job_ref.id, soon())).images

    ended = await row(after, job_ref.id)
    assert (ended.state, ended.cost, ended.error, ended.owner) == ("completed", 12_345, None, None)
    assert len((await after.load(ended)).images) == 1
    [attempt] = await after.ledger.attempts(job_ref.id)
    assert (attempt.state, attempt.outcome, attempt.cost) == ("ended", "ok", 12_345)
    again = await after.place(order(idempotency_key="k"), candidates(["sim"]))
    assert again.joined
    assert (await after.wait(again.id, soon())).images
    assert other.jobs == []


async def test_a_picture_in_hand_of_a_job_that_another_works_on(two: Two) -> None:
    """It is written at once; whoever has the job by now ends it with that picture, and its caller is given it."""
    paused, other = provider("sim", png()), provider("sim", Unknown("lost"))
    paused.hold, other.hold = asyncio.Event(), asyncio.Event()
    before, after = await two.process(paused), await two.process(other)
    job_ref = await before.place(order(idempotency_key="k"), candidates(["sim"]))
    await until(lambda: paused.waited, "at work")
    await take_over(after)
    await until(lambda: other.waited, "taken over")
    paused.hold.set()
    await before.ended(job_ref.id, soon(0.2))
    assert (await row(after, job_ref.id)).state == "in_progress"
    other.hold.set()

    assert len((await after.wait(job_ref.id, soon())).images) == 1
    assert (await row(after, job_ref.id)).state == "completed"


async def test_one_of_two_pictures_in_hand(two: Two) -> None:
    """What the next process had of them stays, what comes later is added."""
    paused, other = provider("sim", png(8, 8), png(8, 9)), provider("sim")
    paused.held, other.found = True, Unknown("nobody knows")
    before, after = await two.process(paused), await two.process(other)
    gate = asyncio.Event()
    whole = paused.wait

    async def wait(*args: Any) -> Any:
        if len(paused.waited) == 1:
            paused.hold = gate
        return await whole(*args)

    paused.wait = wait  # type: ignore[method-assign, assignment]
    job_ref = await before.place(order(wanted=2), candidates(["sim"], n=2))
    await until(lambda: len(paused.waited) == 2, "at work")
    attempts = await before.ledger.attempts(job_ref.id)
    while sum(attempt.state == "ended" for attempt in attempts) < 1:
        await asyncio.sleep(0.005)
        attempts = await before.ledger.attempts(job_ref.id)
    await take_over(after)
    assert len((await after.wait(job_ref.id, soon())).images) == 1
    gate.set()
    await before.wait(job_ref.id, soon())

    assert len((await after.load(await row(after, job_ref.id))).images) == 2


async def test_the_next_process_had_it_too(two: Two) -> None:
    """Where both have fetched the picture the job keeps the one that it ended with, and its bill."""
    paused, other = provider("sim", png(), cost=1), provider("sim", png(), cost=2)
    paused.hold = asyncio.Event()
    before, after = await two.process(paused), await two.process(other)
    job_ref = await before.place(order(), candidates(["sim"]))
    await until(lambda: paused.waited, "at work")
    await take_over(after)
    await after.wait(job_ref.id, soon())
    kept = await row(after, job_ref.id)
    paused.hold.set()
    await before.wait(job_ref.id, soon())

    assert await row(after, job_ref.id) == kept
    [attempt] = await after.ledger.attempts(job_ref.id)
    assert attempt.cost == 2


async def test_a_submit_that_was_taken_after_all(two: Two) -> None:
    """Who was paused over the answer to a submit has its job again with the answer, though it was given up for lost."""
    paused, other = provider("sim", png()), provider("sim")
    paused.hold_submit = asyncio.Event()
    before, after = await two.process(paused), await two.process(other)
    job_ref = await before.place(order(), candidates(["sim"]))
    await until(lambda: paused.jobs, "left")
    await take_over(after)
    with pytest.raises(AllFailed) as caught:
        await after.wait(job_ref.id, soon())
    assert isinstance(caught.value.causes[0], Failed)
    paused.hold = asyncio.Event()
    paused.hold_submit.set()
    await until(lambda: paused.waited, "waited for")
    going = await row(after, job_ref.id)
    [attempt] = await after.ledger.attempts(job_ref.id)
    assert (going.state, going.owner) == ("in_progress", before.ledger.process)
    assert (attempt.state, attempt.handle) == ("submitted", Handle(provider="sim", id=paused.jobs[0].id))
    paused.hold.set()

    assert (await before.wait(job_ref.id, soon())).images
    assert (await row(after, job_ref.id)).state == "completed"


@pytest.mark.parametrize("taken", [True, False])
async def test_a_pause_before_the_bytes_leave(two: Two, taken: bool) -> None:
    """Between what is written down and the request there may be a pause: who lost the job by it sends nothing; who
    has not goes on."""
    paused, other = provider("sim", png()), provider("sim")
    before, after = await two.process(paused), await two.process(other)
    sending = before.ledger.sending

    async def then_paused(*args: Any, **more: Any) -> None:
        await sending(*args, **more)
        now = before.ledger.processes._clock
        before.ledger.processes._clock = lambda: now() + 3600
        assert not before.ledger.processes.sure
        if taken:
            await take_over(after)

    before.ledger.sending = then_paused  # type: ignore[method-assign]
    job_ref = await before.place(order(), candidates(["sim"]))
    if not taken:
        assert (await before.wait(job_ref.id, soon())).images
        assert before.ledger.processes.sure
        return
    with pytest.raises(AllFailed):
        await after.wait(job_ref.id, soon())
    with pytest.raises((AllFailed, JobPending, LeaseLost)):
        await before.wait(job_ref.id, soon(1))
    assert paused.jobs == []
    assert (await row(after, job_ref.id)).spent_nothing


async def test_a_clock_that_is_set_forward(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of two days makes no key lapse and nothing be forgotten; one of an hour back keeps no job waiting."""
    sim = provider("sim", png())
    jobs = await two.process(sim)
    job_ref = await jobs.place(order(idempotency_key="k"), candidates(["sim"]))
    await jobs.wait(job_ref.id, soon())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 86_400)
    jobs.ledger._clock = time.time
    assert 172_700 < ahead() < 172_900
    again = await jobs.place(order(idempotency_key="k"), candidates(["sim"]))
    assert again.joined
    await Reports(jobs.ledger.database, time.time).purge(86_400, 86_400)
    assert await jobs.ledger.read(job_ref.id) is not None
    assert len(sim.jobs) == 1
