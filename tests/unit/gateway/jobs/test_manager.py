"""Jobs from their beginning to their end: joined, left, cancelled, handed over, taken up; over a real database."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.imaging.pool import ImagePool
from gateway.jobs.errors import JobPending, JobResult, NotCancellable, ResultExpired, ShuttingDown
from gateway.jobs.manager import JobManager
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AllFailed, JobCancelled, JobInterrupted, JobRow
from gateway.ledger.store import IdempotencyKeyReused, Ledger, LedgerDown
from providers.base import NO_CONTEXT, AttemptContext, Handle, Outcome
from providers.clock import CLOCK, Clock
from providers.errors import Failed, Rejected, Unfinished, Unknown
from tests.support.clock import Skipping
from tests.support.ledgers import jobs_of, ledger, order, outlast
from tests.unit.gateway.jobs.scripted import Scripted, Shelf, candidates, executing, png, provider


class World:
    """Processes over one database, with providers and a store that outlive them."""

    def __init__(self, imaging: ImagePool, folder: Path, stack: AsyncExitStack) -> None:
        self.imaging = imaging
        self.folder = folder
        self.stack = stack
        self.shelf = Shelf()

    async def process(
        self, *providers: Scripted, attempt_timeout: float = 0.1, clock: Clock = CLOCK, **rules: Any
    ) -> JobManager:
        """A process that begins."""
        opened = await self.stack.enter_async_context(ledger(self.folder))
        executor = executing(self.imaging, *providers, shelf=self.shelf, attempt_timeout=attempt_timeout, clock=clock)
        return jobs_of(executor, opened, **rules)

    async def kill(self, jobs: JobManager) -> None:
        """End a process as SIGKILL does, as far as others see: its locks are free, and nothing more is written."""
        jobs.ledger.processes.unlock()
        jobs.ledger.database._closed = True
        jobs.ledger.database.write_behind = lambda operation: None  # type: ignore[method-assign]


@pytest.fixture
async def world(imaging: ImagePool, tmp_path: Path) -> AsyncIterator[World]:
    """An empty database."""
    async with AsyncExitStack() as stack:
        yield World(imaging, tmp_path, stack)


def soon(seconds: float = 10) -> float:
    """A moment of the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Any, what: str) -> None:
    """Wait for something to be true."""
    end = soon()
    while not condition():
        assert soon(0) < end, what
        await asyncio.sleep(0.005)


async def row(ledger: Ledger, id: str) -> JobRow:  # noqa: A002 - a job's id
    """A job as it is written down."""
    found = await ledger.read(id)
    assert found is not None
    return found


async def test_a_job_is_written_before_and_after(world: World) -> None:
    """When a submit has left its attempt is in the ledger, before a wait its handle, before an answer its end."""
    slow = provider("slow", png(), cost=1234)
    slow.hold, slow.hold_submit = asyncio.Event(), asyncio.Event()
    jobs = await world.process(slow)
    asked = order()
    job_ref = await jobs.place(asked, candidates(["slow"]))
    await until(lambda: slow.jobs, "submitted")
    [submitting] = await jobs.ledger.attempts(asked.id)
    slow.hold_submit.set()
    await until(lambda: slow.waited, "waited for")
    [submitted] = await jobs.ledger.attempts(asked.id)
    slow.hold.set()
    finished = await jobs.wait(job_ref.id, soon())
    [ended] = await jobs.ledger.attempts(asked.id)
    job = await row(jobs.ledger, asked.id)

    assert (submitting.state, submitting.sent, submitting.handle) == ("submitting", {"for": slow.jobs[0].id}, None)
    assert (submitted.state, submitted.handle) == ("submitted", Handle(provider="slow", id=slow.jobs[0].id))
    assert (ended.state, ended.outcome, ended.cost, ended.actual) == ("ended", "ok", 1234, True)
    assert (job.state, job.cost) == ("completed", 1234)
    assert finished.cost == 1234
    assert (await jobs.load(job)) == finished


async def test_nothing_is_bought_that_is_not_written(world: World) -> None:
    """While the database takes nothing no request leaves, and the caller is told that nothing was bought."""
    first, second = provider("first", png()), provider("second", png())
    jobs = await world.process(first, second)
    mend = await _break(jobs)
    job_ref = await jobs.place(order(), candidates(["first", "second"]))

    with pytest.raises(LedgerDown):
        await jobs.wait(job_ref.id, soon())

    assert not first.jobs
    assert not second.jobs
    with pytest.raises(LedgerDown):
        await jobs.place(order(idempotency_key="k"), candidates(["first"]))
    await mend()


async def test_what_is_paid_is_not_lost_with_the_database(world: World) -> None:
    """A picture that was bought is handed out though its end cannot be written; that is written once it can be."""
    slow = provider("slow", png())
    slow.hold = asyncio.Event()
    jobs = await world.process(slow)
    asked = order()
    job_ref = await jobs.place(asked, candidates(["slow"]))
    await until(lambda: slow.waited, "waited for")
    mend = await _break(jobs)
    slow.hold.set()
    finished = await jobs.wait(job_ref.id, soon())
    assert len(finished.images) == 1
    await until(lambda: not jobs.ledger.database.up, "seen to be down")
    await mend()
    await until(lambda: jobs.ledger.database.up, "written after all")

    assert (await row(jobs.ledger, asked.id)).state == "completed"


async def _break(jobs: JobManager) -> Any:
    """Let the database refuse every write. What this gives mends it."""

    def refuse(word: str) -> None:
        connection = jobs.ledger.database._writer.raw_connection()
        connection.cursor().execute(f"PRAGMA query_only={word}")
        connection.close()

    async def mend() -> None:
        await asyncio.to_thread(refuse, "OFF")

    await asyncio.to_thread(refuse, "ON")
    return mend


async def test_same_key_same_job(world: World) -> None:
    """A call with the key of an earlier one is given its job: while it goes on, and when it has ended."""
    slow = provider("slow", png())
    slow.hold = asyncio.Event()
    jobs = await world.process(slow)
    first = await jobs.place(order(idempotency_key="k"), candidates(["slow"]))
    running = await jobs.place(order(idempotency_key="k"), candidates(["slow"]))
    slow.hold.set()
    told = [await jobs.wait(job_ref.id, soon()) for job_ref in (first, running)]
    ended = await jobs.place(order(idempotency_key="k"), candidates(["slow"]))

    assert (first.joined, running.joined, ended.joined) == (False, True, True)
    assert first.id == running.id == ended.id
    assert told[0] == told[1] == await jobs.wait(ended.id, soon())
    assert len(slow.jobs) == 1


async def test_a_key_belongs_to_one_request(world: World) -> None:
    """The key of another request is refused; another caller's same key, and one of yesterday, is another key."""
    first = provider("first", png(), png(), png())
    jobs = await world.process(first)
    job_ref = await jobs.place(order(idempotency_key="k"), candidates(["first"]))
    await jobs.wait(job_ref.id, soon())

    with pytest.raises(IdempotencyKeyReused):
        await jobs.place(order(idempotency_key="k", fingerprint="other"), candidates(["first"]))

    stranger = await jobs.place(order(idempotency_key="k", key="another", fingerprint="x"), candidates(["first"]))
    jobs.ledger._clock = lambda: time.time() + 86_401
    late = await jobs.place(order(idempotency_key="k", fingerprint="other"), candidates(["first"]))
    assert not stranger.joined
    assert not late.joined


async def test_keys_in_the_same_instant(world: World) -> None:
    """Of twenty calls with one key, at once and in two processes, one buys."""
    sim = provider("sim", *(png() for _ in range(20)))
    here, there = await world.process(sim), await world.process(sim)
    calls = [(here, there)[i % 2].place(order(idempotency_key="k"), candidates(["sim"])) for i in range(20)]
    job_ref = await asyncio.gather(*calls)
    results = await asyncio.gather(*((here, there)[i % 2].wait(p.id, soon()) for i, p in enumerate(job_ref)))

    assert len({p.id for p in job_ref}) == 1
    assert sum(not p.joined for p in job_ref) == 1
    assert len(sim.jobs) == 1
    assert len({result.images[0].image.data for result in results}) == 1


async def test_what_cost_nothing_may_run_again(world: World) -> None:
    """After a refusal the same key may buy; after an unknown outcome it never does, and hears what is known by now."""
    sim = provider("sim", Rejected("bad seed"), png(), png())
    jobs = await world.process(sim)
    refused = await jobs.place(order(idempotency_key="a"), candidates(["sim"]))
    with pytest.raises(AllFailed):
        await jobs.wait(refused.id, soon())
    again = await jobs.place(order(idempotency_key="a"), candidates(["sim"]))
    assert not again.joined
    assert (await jobs.wait(again.id, soon())).images

    sim.lost, sim.found = Unknown("lost"), Unknown("still")
    lost = await jobs.place(order(idempotency_key="b"), candidates(["sim"]))
    for _ in range(2):
        with pytest.raises(AllFailed) as caught:
            await jobs.wait(lost.id, soon())
        assert isinstance(caught.value.causes[0], Unknown)
        lost = await jobs.place(order(idempotency_key="b"), candidates(["sim"]))
        assert lost.joined
    with pytest.raises(AllFailed):
        await jobs.wait(lost.id, soon())
    sim.lost, sim.found = None, Handle(provider="sim", id="it")
    found = await jobs.place(order(idempotency_key="b"), candidates(["sim"]))

    assert (await jobs.wait(found.id, soon())).images
    assert len(sim.jobs) == 3
    assert sim.waited[-1] == "it"


async def test_an_impatient_caller_hears_what_is_known(world: World) -> None:
    """A call that is repeated right after a search is told its outcome at once, and starts no other search."""
    sim = provider("sim", png())
    sim.lost, sim.found = Unknown("lost"), Unknown("still")
    jobs = await world.process(sim, search_again_s=60.0)
    for _ in range(3):
        job_ref = await jobs.place(order(idempotency_key="k"), candidates(["sim"]))
        with pytest.raises(AllFailed):
            await jobs.wait(job_ref.id, soon())

    assert job_ref.joined
    assert sim.sought == []
    assert len(sim.jobs) == 1


async def test_a_lost_picture_of_several_is_found_later(world: World) -> None:
    """Of two pictures one was delivered and one is unknown: the repeated call has both, once the provider knows."""
    sim = provider("sim", png(8, 8), png(8, 9))
    jobs = await world.process(sim)
    sim.losing, sim.found = {1}, Unknown("not yet")
    first = await jobs.place(order(idempotency_key="k", wanted=2), candidates(["sim"], n=2))
    partial = await jobs.wait(first.id, soon())
    sim.found = Handle(provider="sim", id="it")
    again = await jobs.place(order(idempotency_key="k", wanted=2), candidates(["sim"], n=2))
    whole = await jobs.wait(again.id, soon())

    assert (len(partial.images), len(whole.images)) == (1, 2)
    assert whole.images[0] == partial.images[0]
    assert len(sim.jobs) == 2


async def test_retries_join_what_nobody_waits_for(world: World) -> None:
    """Three equal calls are three jobs, and the retries of their callers, who have all left, are given one each."""
    slow = provider("slow", png(8, 8), png(8, 9), png(9, 8))
    slow.hold = asyncio.Event()
    jobs = await world.process(slow)
    firsts = [await jobs.place(order(), candidates(["slow"])) for _ in range(3)]
    await until(lambda: len(slow.waited) == 3, "all at work")
    for job_ref in firsts:
        jobs.leave(job_ref, delivered=False)
    retries = [await jobs.place(order(), candidates(["slow"]), retry=1) for _ in range(3)]
    slow.hold.set()
    await asyncio.gather(*(jobs.wait(job_ref.id, soon()) for job_ref in retries))

    assert len({job_ref.id for job_ref in firsts}) == 3
    assert {job_ref.id for job_ref in retries} == {job_ref.id for job_ref in firsts}
    assert all(job_ref.joined for job_ref in retries)
    assert len(slow.jobs) == 3


async def test_a_retry_beside_a_living_caller(world: World) -> None:
    """Where the caller of an equal job still waits for it, a retry is another call's, and buys."""
    slow, clock = provider("slow", png(), png()), Skipping()
    slow.hold = asyncio.Event()
    jobs = await world.process(slow, clock=clock)
    first = await jobs.place(order(), candidates(["slow"]))
    await until(lambda: slow.waited, "at work")
    retry = await jobs.place(order(), candidates(["slow"]), retry=1)
    watched = sum(clock.slept)
    slow.hold.set()
    await jobs.wait(retry.id, clock.after(60))

    assert 0.5 < watched < 1.5
    assert not retry.joined
    assert retry.id != first.id


async def test_a_second_retry_follows_its_own_first(world: World) -> None:
    """A caller who repeats twice is given its own job again, not that of another who repeated once."""
    slow = provider("slow", png(), png())
    slow.hold = asyncio.Event()
    jobs = await world.process(slow, clock=Skipping())
    a, b = [await jobs.place(order(), candidates(["slow"])) for _ in range(2)]
    await until(lambda: len(slow.waited) == 2, "at work")
    for job_ref in (a, b):
        jobs.leave(job_ref, delivered=False)
    again = await jobs.place(order(), candidates(["slow"]), retry=1)
    jobs.leave(again, delivered=False)
    second = await jobs.place(order(), candidates(["slow"]), retry=2)
    other = await jobs.place(order(), candidates(["slow"]), retry=1)
    slow.hold.set()

    assert again.id == second.id == a.id
    assert other.id == b.id


async def test_old_and_other_calls_are_not_joined(world: World) -> None:
    """A retry joins no job of another request, of another caller, of a quarter of an hour ago, or that cost nothing."""
    sim = provider("sim", png(), Rejected("bad"), *(png() for _ in range(4)))
    jobs = await world.process(sim)
    done = await jobs.place(order(), candidates(["sim"]))
    await jobs.wait(done.id, soon())
    jobs.leave(done, delivered=True)
    refused = await jobs.place(order(fingerprint="refused"), candidates(["sim"]))
    with pytest.raises(AllFailed):
        await jobs.wait(refused.id, soon())
    jobs.leave(refused, delivered=True)
    for other in ({"fingerprint": "other"}, {"key": "other"}, {"fingerprint": "refused"}):
        assert not (await jobs.place(order(**other), candidates(["sim"]), retry=1)).joined
    assert (await jobs.place(order(), candidates(["sim"]), retry=1)).joined
    jobs.ledger._clock = lambda: time.time() + 901
    assert not (await jobs.place(order(), candidates(["sim"]), retry=1)).joined


async def test_leaving_before_the_submit_cancels(world: World) -> None:
    """A caller who leaves while his picture is still uploaded has bought nothing, and nothing is bought for him."""
    slow = provider("slow", png())
    slow.hold_upload = asyncio.Event()
    jobs = await world.process(slow)
    asked = order()
    job_ref = await jobs.place(asked, candidates(["slow"]))
    await asyncio.sleep(0.02)
    jobs.leave(job_ref, delivered=False)

    with pytest.raises(JobCancelled):
        await jobs.wait(job_ref.id, soon())
    assert not slow.jobs
    job = await row(jobs.ledger, asked.id)
    assert (job.state, job.cost, job.spent_nothing) == ("cancelled", 0, True)


@pytest.mark.parametrize("policy", ["finish", "cancel"])
async def test_leaving_after_the_submit(world: World, policy: str) -> None:
    """What is paid for is finished and kept, or cancelled upstream, as the operator says."""
    slow = provider("slow", Failed("it was cancelled", unbilled=True) if policy == "cancel" else png())
    slow.hold = asyncio.Event()
    jobs = await world.process(slow, on_disconnect=policy)
    job_ref = await jobs.place(order(), candidates(["slow"]))
    await until(lambda: slow.waited, "at work")
    jobs.leave(job_ref, delivered=False)
    await asyncio.sleep(0.02)
    slow.hold.set()
    try:
        await jobs.wait(job_ref.id, soon())
    except JobCancelled as cancelled:
        outcome = cancelled.attempts[0].outcome
    else:
        outcome = "completed"

    assert outcome == {"finish": "completed", "cancel": "cancelled"}[policy]
    assert len(slow.cancelled) == (policy == "cancel")


async def test_leaving_while_the_submit_is_answered(world: World) -> None:
    """A request that has left is waited for before it is cancelled: else nobody would know what it bought."""
    slow = provider("slow", png())
    slow.hold_submit = asyncio.Event()
    jobs = await world.process(slow, on_disconnect="cancel")
    job_ref = await jobs.place(order(), candidates(["slow"]))
    await until(lambda: slow.jobs, "left")
    jobs.leave(job_ref, delivered=False)
    await asyncio.sleep(0.02)
    slow.hold_submit.set()
    finished = await jobs.wait(job_ref.id, soon())

    assert slow.cancelled == [slow.jobs[0].id]
    assert len(finished.images) == 1  # it was done before its cancel came, and is paid for


async def test_cancelling(world: World) -> None:
    """A cancelled job is cancelled upstream, seen to end, and its bill is told; where nobody can cancel it goes on."""
    slow = provider("slow", Failed("canceled", cost=4321))
    slow.hold = asyncio.Event()
    jobs = await world.process(slow)
    asked = order()
    job_ref = await jobs.place(asked, candidates(["slow"]))
    await until(lambda: slow.waited, "at work")
    await jobs.cancel(job_ref.id, soon())
    job = await row(jobs.ledger, asked.id)
    assert slow.cancelled
    assert (job.state, job.cost) == ("cancelled", 4321)

    stubborn = provider("stubborn", png())
    stubborn.hold, stubborn.cancels = asyncio.Event(), False
    other = await world.process(stubborn)
    job_ref = await other.place(order(), candidates(["stubborn"]))
    await until(lambda: stubborn.waited, "at work")
    with pytest.raises(NotCancellable):
        await other.cancel(job_ref.id, soon())
    stubborn.hold.set()
    assert (await other.wait(job_ref.id, soon())).images


async def test_cancelling_in_another_process(world: World) -> None:
    """Whoever works on a job hears of a cancel that came to another process."""
    slow = provider("slow", Failed("canceled", unbilled=True))
    slow.hold = asyncio.Event()
    here, there = await world.process(slow), await world.process(slow)
    keeping = asyncio.create_task(RecoveryLoop(here, lease_s=1.0).keep())
    job_ref = await here.place(order(), candidates(["slow"]))
    await until(lambda: slow.waited, "at work")
    await there.cancel(job_ref.id, soon())
    keeping.cancel()

    assert (await row(there.ledger, job_ref.id)).state == "cancelled"
    with pytest.raises(JobCancelled):
        await there.wait(job_ref.id, soon())


@pytest.mark.parametrize("at", ["uploading", "submitting", "submitted"])
async def test_a_killed_process(world: World, at: str) -> None:
    """Whatever a process was at when it was killed, the next one goes on from what is written and never pays twice."""
    sim = provider("sim", png(), png())
    sim.hold, sim.hold_submit, sim.hold_upload = asyncio.Event(), asyncio.Event(), asyncio.Event()
    for gate, name in ((sim.hold_upload, "uploading"), (sim.hold_submit, "submitting")):
        if at != name:
            gate.set()
            continue
        break
    before = await world.process(sim)
    asked = order(idempotency_key="k")
    await before.place(asked, candidates(["sim"]))
    await until({"uploading": lambda: True, "submitting": lambda: sim.jobs, "submitted": lambda: sim.waited}[at], at)
    await asyncio.sleep(0.05)
    await world.kill(before)
    for gate in (sim.hold, sim.hold_submit, sim.hold_upload):
        gate.set()
    sim.found = Handle(provider="sim", id="found")

    after = await world.process(sim)
    await outlast(after.ledger)
    await RecoveryLoop(after, lease_s=1.0).adopt_orphans()
    if at == "uploading":
        with pytest.raises(JobInterrupted):
            await after.wait(asked.id, soon())
        assert (await row(after.ledger, asked.id)).spent_nothing
        return
    finished = await after.wait(asked.id, soon())
    assert len(finished.images) == 1
    assert len(sim.jobs) == 1
    assert len(sim.sought) == (at == "submitting")


async def test_what_nobody_can_tell(world: World) -> None:
    """A submit of which nobody knows what became of it is marked unknown, counted, and not made again."""
    sim = provider("sim", png())
    sim.hold_submit = asyncio.Event()
    before = await world.process(sim)
    asked = order(idempotency_key="k")
    await before.place(asked, candidates(["sim"]))
    await until(lambda: sim.jobs, "left")
    await world.kill(before)
    sim.hold_submit.set()
    sim.found = Unknown("nobody knows")
    after = await world.process(sim)
    await outlast(after.ledger)
    await RecoveryLoop(after, lease_s=1.0).adopt_orphans()

    with pytest.raises(AllFailed):
        await after.wait(asked.id, soon())
    [attempt] = await after.ledger.attempts(asked.id)
    assert (attempt.state, attempt.cost) == ("unknown", 30_000)
    assert len(sim.jobs) == 1


async def test_a_job_that_was_not_taken(world: World) -> None:
    """A submit that surely bought nothing leaves a failed job without a bill: the same key may buy again."""
    sim = provider("sim", png(), png())
    sim.hold_submit = asyncio.Event()
    before = await world.process(sim)
    asked = order(idempotency_key="k")
    await before.place(asked, candidates(["sim"]))
    await until(lambda: sim.jobs, "left")
    await world.kill(before)
    sim.hold_submit.set()
    after = await world.process(sim)
    await outlast(after.ledger)
    await RecoveryLoop(after, lease_s=1.0).adopt_orphans()
    with pytest.raises(AllFailed):
        await after.wait(asked.id, soon())
    again = await after.place(order(idempotency_key="k"), candidates(["sim"]))

    assert not again.joined
    assert (await after.wait(again.id, soon())).images


async def test_leaving_in_good_order(world: World) -> None:
    """A process that ends finishes what it can, leaves the rest to the next one, and cancels only what is its own."""
    slow, quick, held = (
        provider("slow", png()),
        provider("quick", png()),
        provider("held", Failed("gone", unbilled=True)),
    )
    slow.hold, quick.hold, held.hold = asyncio.Event(), asyncio.Event(), asyncio.Event()
    held.held = True
    jobs = await world.process(slow, quick, held)
    names = ("slow", "quick", "held")
    job_ref = [await jobs.place(order(fingerprint=name), candidates([name])) for name in names]
    await until(lambda: slow.waited and quick.waited and held.waited, "at work")
    closing = asyncio.create_task(RecoveryLoop(jobs, lease_s=1.0).close(soon(0.2), soon(3)))
    await asyncio.sleep(0.02)
    quick.hold.set()
    await closing
    with pytest.raises(ShuttingDown):
        await jobs.place(order(), candidates(["slow"]))

    next_ = await world.process(slow, quick, held)
    states = [(await row(next_.ledger, p.id)).state for p in job_ref]
    assert states == ["in_progress", "completed", "cancelled"]
    assert (slow.cancelled, quick.cancelled) == ([], [])
    assert len(held.cancelled) == 1
    await RecoveryLoop(next_, lease_s=1.0).adopt_orphans()
    slow.hold.set()
    assert (await next_.wait(job_ref[0].id, soon())).images
    assert len(slow.jobs) == 1


async def test_a_process_that_was_given_up_stops_buying(world: World) -> None:
    """A process whose job another one has taken over learns it before it buys anything more for it."""
    first, second = provider("first", Failed("no", unbilled=True)), provider("second", png())
    first.hold = asyncio.Event()
    clock = Skipping()
    jobs = await world.process(first, second, clock=clock)
    asked = order()
    job_ref = await jobs.place(asked, candidates(["first", "second"]))
    await until(lambda: first.waited, "at work")
    await jobs.ledger.database.write(lambda c: c.execute(text("UPDATE jobs SET owner = 'another'")))
    first.hold.set()
    with pytest.raises(JobPending):
        await jobs.wait(job_ref.id, clock.after(30))

    assert not second.jobs
    assert (await row(jobs.ledger, asked.id)).state == "in_progress"


async def test_late_jobs_are_kept(world: World) -> None:
    """A caller is told at the deadline of a job that cannot be cancelled; its picture comes later, and is kept."""
    late, clock = provider("late", Unfinished("goes on"), Unfinished("goes on"), png()), Skipping()
    late.hold = gate = asyncio.Event()
    gate.set()
    whole = late.wait

    async def wait(handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        if len(late.waited) == 2:  # to the deadline: this one is beyond it
            gate.clear()
        return await whole(handle, deadline, link)

    late.wait = wait  # type: ignore[method-assign]
    jobs = await world.process(late, clock=clock)
    job_ref = await jobs.place(order(), candidates(["late"]))
    with pytest.raises(JobPending) as told:
        await jobs.wait(job_ref.id, clock.after(600))
    gate.set()
    await jobs.ended(job_ref.id, clock.after(600))

    assert [(attempt.outcome, attempt.cost) for attempt in told.value.attempts] == [("unfinished", 30_000)]
    assert sum(clock.slept) > 25
    assert len((await jobs.wait(job_ref.id, clock.after(600))).images) == 1
    assert len(late.jobs) == 1


async def test_a_picture_that_does_not_come_is_asked_for_again(world: World) -> None:
    """A job that is done and whose picture cannot be had so far is waited for again, and nothing else is bought."""
    sim, other = provider("sim", png()), provider("other", png())
    tried: list[float] = []
    whole = sim.wait

    async def wait(handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        tried.append(deadline)
        if len(tried) == 1:
            raise Unfinished("not so far")
        return await whole(handle, deadline, link)

    sim.wait = wait  # type: ignore[method-assign]
    clock = Skipping()
    jobs = await world.process(sim, other, attempt_timeout=20, clock=clock)
    job_ref = await jobs.place(order(), candidates(["sim", "other"]))

    assert len((await jobs.wait(job_ref.id, clock.after(60))).images) == 1
    assert clock.slept == [0.5]
    assert len(tried) == 2
    assert (len(sim.jobs), len(other.jobs)) == (1, 0)


async def test_deleted_files_are_told(world: World) -> None:
    """A job whose pictures are over their time says so, and does not run again."""
    sim = provider("sim", png())
    jobs = await world.process(sim)
    job_ref = await jobs.place(order(idempotency_key="k"), candidates(["sim"]))
    await jobs.wait(job_ref.id, soon())
    world.shelf.files.clear()
    again = await jobs.place(order(idempotency_key="k"), candidates(["sim"]))

    with pytest.raises(ResultExpired):
        await jobs.wait(again.id, soon())
    assert len(sim.jobs) == 1


async def test_no_picture_is_held_in_a_circle(world: World) -> None:
    """Once a job has ended and its caller has the pictures nothing holds them: no collector has to find them first."""
    gc.collect()
    gc.disable()
    try:
        jobs = await world.process(provider("one", png()))
        finished = await jobs.wait((await jobs.place(order(), candidates(["one"]))).id, soon())
        assert sum(type(one) is JobResult for one in gc.get_objects()) == 1
        del finished
        await asyncio.sleep(0.05)

        assert not any(type(one) is JobResult for one in gc.get_objects())
    finally:
        gc.enable()
