"""A store that is away when a picture is made: its job has not ended before the picture is stored or handed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from gateway.imaging.pool import ImagePool
from gateway.jobs.errors import ResultExpired
from gateway.jobs.manager import JobManager
from gateway.jobs.received import Received
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AttemptRow, JobRow
from normalization.values import Image
from providers.clock import CLOCK, Clock
from tests.support.clock import Skipping
from tests.support.ledgers import jobs_of, ledger, order
from tests.unit.gateway.jobs.scripted import Scripted, Shelf, candidates, executing, png, provider


class Moody(Shelf):
    """A shelf that takes nothing while it is away, or does not take a picture so many times."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.fails = 0
        self.asked = 0

    async def keep(self, image: Image) -> str | None:
        self.asked += 1
        if self.away or self.fails:
            self.fails = max(0, self.fails - 1)
            return None
        return await super().keep(image)


class World:
    """Processes over one database and one shelf."""

    def __init__(self, imaging: ImagePool, folder: Path, stack: AsyncExitStack) -> None:
        self.imaging, self.folder, self.stack = imaging, folder, stack
        self.shelf = Moody()
        self.received = Received([LocalStore(folder)])

    async def process(self, *providers: Scripted, clock: Clock = CLOCK) -> JobManager:
        """A process that begins."""
        opened = await self.stack.enter_async_context(ledger(self.folder))
        executor = executing(self.imaging, *providers, shelf=self.shelf, clock=clock)
        return jobs_of(replace(executor, received=self.received), opened)

    def kill(self, jobs: JobManager, id: str) -> None:  # noqa: A002 - a job's id
        """End a process that waits with this job, as SIGKILL does, as far as others see."""
        jobs.ledger.processes.unlock()
        jobs.ledger.database._closed = True
        jobs.ledger.database.write_behind = lambda operation: None  # type: ignore[method-assign]
        job = jobs.live(id)
        assert job is not None
        job.recorder.leaving = True
        job.task.cancel()


@pytest.fixture
async def world(imaging: ImagePool, tmp_path: Path) -> AsyncIterator[World]:
    """An empty database."""
    async with AsyncExitStack() as stack:
        yield World(imaging, tmp_path, stack)


async def until(condition: Any, what: str) -> None:
    """Wait for something to be true."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(what)


def soon() -> float:
    """A moment of the event loop's clock."""
    return asyncio.get_running_loop().time() + 10


async def written(jobs: JobManager, id: str) -> tuple[JobRow, list[AttemptRow]]:  # noqa: A002 - a job's id
    """A job with its attempts as they are written down."""
    found = await jobs.ledger.read(id)
    assert found is not None
    return found, await jobs.ledger.attempts(id)


async def test_a_background_job_waits_for_the_store(world: World) -> None:
    """It is in progress as long as its picture is nowhere, and then has it; its provider is asked nothing more."""
    one, clock = provider("one", png(), cost=5), Skipping()
    jobs = await world.process(one, clock=clock)
    asked = order(mode="background")
    world.shelf.away = True
    job_ref = await jobs.place(asked, candidates(["one"]))
    await until(lambda: world.shelf.asked > 3, "tried again")
    row, [attempt] = await written(jobs, asked.id)
    world.shelf.away = False
    finished = await jobs.wait(job_ref.id, clock.now() + 1000)
    await until(lambda: not jobs.count, "ended")
    end, [ended] = await written(jobs, asked.id)

    assert (row.state, attempt.state) == ("in_progress", "submitted")
    assert (end.state, end.cost, ended.state, ended.outcome) == ("completed", 5, "ended", "ok")
    assert [kept["file"] for kept in ended.files] == list(world.shelf.files)
    assert (await jobs.load(end)).images[0].image == finished.images[0].image
    assert one.waited == [one.jobs[0].id]
    assert [pause for pause in clock.slept if pause >= 0.5][:3] == [0.5, 1.0, 2.0]


async def test_a_caller_that_waits_is_given_it_at_once(world: World) -> None:
    """The picture is in its hands then, and the job ends a while after; a repeated call is told how that came about."""
    one, clock = provider("one", png()), Skipping()
    jobs = await world.process(one, clock=clock)
    world.shelf.away = True
    asked = order(idempotency_key="once")
    job_ref = await jobs.place(asked, candidates(["one"]))
    finished = await jobs.wait(job_ref.id, clock.now() + 1000)
    row, _ = await written(jobs, asked.id)
    before = clock.now()
    jobs.leave(job_ref, delivered=True)
    await until(lambda: not jobs.count, "ended")
    end, [ended] = await written(jobs, asked.id)

    assert [picture.file for picture in finished.images] == [None]
    assert (row.state, end.state, ended.state) == ("in_progress", "completed", "ended")
    with pytest.raises(ResultExpired) as gone:
        await jobs.load(end)
    assert not gone.value.kept
    assert clock.now() - before >= 15


async def test_an_answer_that_was_lost_on_its_way(world: World) -> None:
    """The whole of it had left here; the store is back soon, and whoever repeats the call has the picture."""
    one, clock = provider("one", png()), Skipping()
    jobs = await world.process(one, clock=clock)
    world.shelf.away = True
    asked = order(idempotency_key="once")
    job_ref = await jobs.place(asked, candidates(["one"]))
    await jobs.wait(job_ref.id, clock.now() + 1000)
    jobs.leave(job_ref, delivered=True)
    world.shelf.away, world.shelf.fails = False, 2
    await until(lambda: not jobs.count, "ended")

    again = await jobs.place(order(idempotency_key="once"), candidates(["one"]))
    assert again.joined
    assert (await jobs.wait(again.id, clock.now() + 1000)).images
    assert len(one.jobs) == 1


async def test_a_caller_that_left_before(world: World) -> None:
    """Nobody has the picture: it is kept as soon as that can be."""
    one, clock = provider("one", png()), Skipping()
    jobs = await world.process(one, clock=clock)
    world.shelf.fails = 3
    job_ref = await jobs.place(order(), candidates(["one"]))
    await jobs.wait(job_ref.id, clock.now() + 1000)
    jobs.leave(job_ref, delivered=False)
    await until(lambda: not jobs.count, "ended")

    assert (await written(jobs, job_ref.id))[0].state == "completed"
    assert len(world.shelf.files) == 1


async def test_a_cancel_comes_too_late(world: World) -> None:
    """There is nothing left to be saved, and a picture to be lost."""
    one = provider("one", png())
    jobs = await world.process(one)
    world.shelf.away = True
    asked = order(mode="background")
    await jobs.place(asked, candidates(["one"]))
    await until(lambda: (live := jobs.live(asked.id)) and live.made.is_set(), "made")
    await jobs.cancel(asked.id, asyncio.get_running_loop().time() + 0.05)
    assert (await written(jobs, asked.id))[0].state == "in_progress"
    world.shelf.away = False
    await jobs.wait(asked.id, soon())
    await until(lambda: not jobs.count, "ended")

    assert (await written(jobs, asked.id))[0].state == "completed"
    assert not one.cancelled


@pytest.mark.parametrize("end", ["killed", "in good order"])
@pytest.mark.parametrize("held", [False, True], ids=["can_be_asked_again", "gives_it_once"])
async def test_one_of_four_and_a_process_that_ends(world: World, end: str, held: bool) -> None:
    """The other one has all four pictures and bought none; only of the fourth the provider may be asked again."""
    one = provider("one", *[png()] * 4)
    one.held = held
    first = await world.process(one)
    asked = order(mode="background", wanted=4)
    world.shelf.fails = 1

    await first.place(asked, candidates(["one"], n=4))
    await until(lambda: len(world.shelf.files) == 3, "three are kept")
    world.shelf.away = True
    await until(lambda: (live := first.live(asked.id)) and live.made.is_set(), "made")
    attempts = await first.ledger.attempts(asked.id)
    while sum(attempt.state == "ended" for attempt in attempts) < 3 or "submitting" in {a.state for a in attempts}:
        attempts = await first.ledger.attempts(asked.id)
    if end == "killed":
        world.kill(first, asked.id)
    else:
        now = asyncio.get_running_loop().time()
        await RecoveryLoop(first, lease_s=1.0).close(now, now + 5)
    again = provider("one", png())
    second = await world.process(again)
    world.shelf.away = False
    while second.live(asked.id) is None:  # until the first one's last writes are there
        await RecoveryLoop(second, lease_s=1.0).adopt_orphans()
    finished = await second.wait(asked.id, soon())
    await until(lambda: not second.count, "ended")
    row, ended = await written(second, asked.id)

    assert sorted(attempt.state for attempt in attempts) == ["ended", "ended", "ended", "submitted"]
    assert (row.state, [attempt.outcome for attempt in ended]) == ("completed", ["ok"] * 4)
    assert len(finished.images) == len(world.shelf.files) == 4
    assert len(one.jobs) == 4
    # What it gave is kept beside the store, and nothing of that is left.
    assert (again.jobs, again.sought, again.waited) == ([], [], [])
    await asyncio.sleep(0)
    assert await world.received.get(next(attempt.id for attempt in attempts if attempt.state == "submitted")) is None
