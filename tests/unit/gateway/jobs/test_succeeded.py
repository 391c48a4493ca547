"""Jobs whose provider has said that they succeeded: whatever comes then, they are to be fetched."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import override

from gateway.imaging.pool import ImagePool
from gateway.jobs.context import Recorder
from gateway.jobs.errors import JobPending, JobResult
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AllFailed, AttemptRow, succeeded
from providers.base import NO_CONTEXT, AttemptContext, Handle, Outcome
from providers.errors import Expired, Failed, ProviderError, Unfetched, Unfinished, Unknown, Unusable
from providers.memory import Reading
from tests.support.clock import Skipping
from tests.support.fake_cog import until
from tests.support.ledgers import jobs_of, ledger, order
from tests.unit.gateway.jobs.scripted import Scripted, Shelf, candidates, executing, png, provider

LATER = [Expired("x"), Unknown("x"), Failed("x"), Unusable("x"), Unfinished("x"), Unfetched("x")]


class Made(Scripted):
    """A provider that says in each wait that the job has succeeded."""

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        link.succeeded()
        return await super().wait(handle, deadline, link)


def made(name: str, *answers: bytes | ProviderError) -> Made:
    """One that has succeeded, with what it says to each wait."""
    return Made(name, deque(answers))


@pytest.mark.parametrize("error", LATER, ids=lambda error: type(error).__name__)
async def test_what_a_provider_says_afterwards_is_no_end(imaging: ImagePool, error: ProviderError) -> None:
    """It said that the job has succeeded: an error that it answers with later is asked again, and buys nothing."""
    clock = Skipping()
    first, second = made("first", error, error, png()), provider("second", png())
    executor = executing(imaging, first, second, attempt_timeout=20, clock=clock)
    finished = await executor.run("img_1", candidates(["first", "second"]), clock.after(60), Recorder())

    assert [attempt.outcome for attempt in finished.attempts] == ["ok"]
    assert (len(first.jobs), len(second.jobs)) == (1, 0)


async def test_it_is_known_over_a_restart(imaging: ImagePool, tmp_path: Path) -> None:
    """A process that takes the job up knows that it has succeeded, though its provider says something else by then."""
    clock = Skipping()
    sim = made("sim", png())
    sim.hold = asyncio.Event()
    shelf = Shelf()
    async with ledger(tmp_path) as opened:
        before = jobs_of(executing(imaging, sim, shelf=shelf, attempt_timeout=600, clock=clock), opened)
        job_ref = await before.place(order(), candidates(["sim"]))
        await until(lambda: sim.waited)
        closing = RecoveryLoop(before, lease_s=1.0)
        await closing.close(clock.now(), clock.now())
        [attempt] = await opened.attempts(job_ref.id)
        assert attempt.succeeded
    after_sim = provider("sim", Unknown("vanished"), Expired("late"), png())
    async with ledger(tmp_path) as opened:
        after = jobs_of(executing(imaging, after_sim, shelf=shelf, attempt_timeout=600, clock=clock), opened)
        await RecoveryLoop(after, lease_s=1.0).adopt_orphans()
        finished = await after.wait(job_ref.id, clock.after(600))

    assert len(finished.images) == 1
    assert after_sim.jobs == []


@pytest.mark.parametrize(("left", "at_least", "at_most"), [(30, 30, 3700), (-1800, 60, 1900), (-7200, 60, 120)])
async def test_it_is_fetched_until_it_is_too_late(
    imaging: ImagePool, left: float, at_least: float, at_most: float
) -> None:
    """`late_result_s` counts from the job's deadline, however often it is taken up; a minute is tried in any case."""
    clock = Skipping()
    sim = provider("sim", *(Unfetched("away") for _ in range(2000)))
    executor = executing(imaging, sim, clock=clock)
    object.__setattr__(executor.calls, "late", 3600.0)
    ended: list[AttemptRow] = []

    class Rows(Recorder):
        @override
        def ended(self, attempt: AttemptRow) -> None:
            ended.append(attempt)

    row = await _begun(imaging)
    began = clock.now()
    with pytest.raises(AllFailed) as caught:
        await executor.resume([row], 1, left, Rows())

    assert at_least <= clock.now() - began <= at_most
    assert [type(cause) for cause in caught.value.causes] == [Unfetched]
    # What may yet be fetched is not over: a repeated call looks again.
    assert [(one.state, one.outcome, one.cost) for one in ended] == [("unknown", "unfetched", 30_000)]


async def _begun(imaging: ImagePool) -> AttemptRow:
    """An attempt whose job has succeeded."""
    rows: list[AttemptRow] = []

    class Rows(Recorder):
        @override
        async def sending(self, attempt: AttemptRow) -> None:
            rows.append(attempt)

    clock = Skipping()
    executor = executing(imaging, provider("sim", png()), clock=clock)
    await executor.run("img_1", candidates(["sim"]), clock.after(30), Rows())
    return replace(rows[0], handle=succeeded(Handle(provider="sim", id="it")), state="submitted")


async def test_the_caller_hears_that_it_is_made(imaging: ImagePool, tmp_path: Path) -> None:
    """At the deadline, of a job that has succeeded: made, billed, and still to be fetched; not that it is not ready."""
    clock = Skipping()
    sim = made("sim", *(Unfetched("away") for _ in range(200)))
    async with ledger(tmp_path) as opened:
        jobs = jobs_of(executing(imaging, sim, attempt_timeout=5, clock=clock), opened)
        job_ref = await jobs.place(order(), candidates(["sim"]))
        with pytest.raises(JobPending) as told:
            await jobs.wait(job_ref.id, clock.after(600))
        await jobs.ended(job_ref.id, clock.after(10_000))

    [attempt] = told.value.attempts
    assert (attempt.outcome, attempt.cost) == ("unfetched", 30_000)


async def test_a_job_is_ended_before_its_deadline(imaging: ImagePool) -> None:
    """A provider that has to be told to stop is told so while there is time left: its answer is the caller's too."""
    clock = Skipping()
    limits: list[float] = []

    class Slow(Scripted):
        @override
        async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
            limits.append(deadline - began)
            raise Expired("cancelled", unbilled=True)

    for cancels, wait_s, expected in ((True, 12, 9.6), (True, 280, 270), (False, 12, 12)):
        began = clock.now()
        slow = Slow("slow", deque(), cancels=cancels)
        executor = executing(imaging, slow, attempt_timeout=1000, clock=clock)
        with pytest.raises(AllFailed):
            await executor.run("img_1", candidates(["slow"]), began + wait_s, Recorder())
        assert limits.pop() == pytest.approx(expected, abs=0.5)


async def test_an_error_keeps_no_picture(imaging: ImagePool) -> None:
    """What came and was no picture is let go of at once: no collection has to find it first, and its room is free."""

    class Large(Scripted):
        @override
        async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
            await Reading().take(4 << 20)
            return Outcome(images=(bytes(4 << 20),))

    clock = Skipping()
    executor = executing(imaging, Large("large", deque()), clock=clock)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(AllFailed) as caught:
            await executor.run("img_1", candidates(["large"]), clock.after(30), Recorder())
        assert executor.calls.room.used == 0
        held = [one for one in gc.get_objects() if type(one) is Outcome and sum(map(len, one.images)) == 4 << 20]
        assert held == []
        assert caught.value.causes
    finally:
        gc.enable()


async def test_fewer_pictures_come_with_a_warning(imaging: ImagePool) -> None:
    """`metadata.partial` is a word for programs; whoever reads the warnings is told as well."""
    from gateway.api.results import metadata
    from gateway.jobs.errors import JobRef

    clock = Skipping()
    executor = executing(imaging, provider("only", png(), Failed("x")), clock=clock)
    finished: JobResult = await executor.run("img_1", candidates(["only"], n=2), clock.after(30), Recorder())
    told = metadata(JobRef(id="img_1", created=0, joined=False, model="m"), finished, ["a note"])

    assert told["partial"] is True
    assert told["warnings"][-1].startswith("Only 1 of 2 images were generated")
