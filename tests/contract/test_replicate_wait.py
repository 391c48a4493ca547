"""Waiting at Replicate: progress on the way, the bill at a bad end, the truth after a cancel."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from typing_extensions import override

from providers.base import Handle, Upstream
from providers.errors import Blocked, Expired, Failed, ProviderError
from providers.kit.polling import Pace
from providers.replicate.adapter import Replicate
from tests.contract.replicate_setup import UPSTREAM, Joint, adapter, job, soon
from tests.simulators.common import Fault, size
from tests.simulators.replicate import USD_PER_SECOND, Simulator
from tests.support.fake_cog import until
from tests.support.linked import Told, bill, stored


@pytest.fixture
def sim(running_replicate: Simulator) -> Simulator:
    running_replicate.reset()
    return running_replicate


@pytest.fixture
def clock(sim: Simulator) -> Joint:
    return Joint(sim)


@pytest.fixture
async def provider(sim: Simulator, clock: Joint) -> AsyncIterator[Replicate]:
    async with adapter(sim, clock=clock) as made:
        yield made


async def test_progress_is_told_as_the_logs_tell_it(provider: Replicate, sim: Simulator) -> None:
    """Looks between the begin and the end tell a growing share."""
    sim.run_s = 0.4
    link = Told()
    handle = await provider.submit(job())
    await provider.wait(handle, soon(), link)
    assert link.shares == sorted(set(link.shares))
    assert len(link.shares) > 3
    assert link.shares[-1] == 1.0
    assert link.slept > 3


async def test_progress_never_goes_back_and_nonsense_is_ignored(provider: Replicate, sim: Simulator) -> None:
    """A second bar begins at nothing, and logs may be anything."""
    handle = await provider.submit(job())
    state = {"id": handle.id, "status": "processing"}
    told = [" 60%|######    |\n", " 60%|##|\n  5%|#|", None, 7, ["99%|"], "900%|", "-5%|", "70%", " 80%|########  |"]
    sim.faults.script("poll", *(Fault(status=200, body={**state, "logs": logs}) for logs in told))
    link = Told()
    await provider.wait(handle, soon(), link)
    assert link.shares == [0.6, 0.8, 1.0]


async def test_two_misses_lose_no_job(sim: Simulator, clock: Joint) -> None:
    """However little time a job has to be missed for: right after the submit not every server knows of it."""
    async with adapter(sim, clock=clock, vanish_s=0) as provider:
        handle = await provider.submit(job())
        sim.faults.script("poll", *[Fault(status=404, body={"detail": "Not found."})] * 2)
        assert size((await provider.wait(handle, soon())).images[0]) == (48, 32)


@pytest.mark.parametrize(("word", "kind"), [("fails", Failed), ("nsfw", Blocked)])
async def test_a_failed_job_tells_its_bill(
    provider: Replicate, sim: Simulator, word: str, kind: type[ProviderError]
) -> None:
    """The seconds that ran are billed, whatever came of them."""
    sim.faults.script("job", Fault(kind="job", word=word))
    handle = await provider.submit(job())
    with pytest.raises(kind) as caught:
        await provider.wait(handle, soon())
    assert bill(caught.value) == (round(0.1 * USD_PER_SECOND * 1_000_000), True)


async def test_a_failed_job_whose_bill_comes_late_is_asked_again(provider: Replicate, sim: Simulator) -> None:
    """Its end may be told before its seconds are."""
    sim.faults.script("job", Fault(kind="job", word="fails"))
    handle = await provider.submit(job())
    await until(lambda: sim.jobs[handle.id].status == "failed")
    sim.faults.script("poll", Fault(status=200, body={"id": handle.id, "status": "failed", "error": "no"}))
    with pytest.raises(Failed) as caught:
        await provider.wait(handle, soon())
    assert bill(caught.value) == (round(0.1 * USD_PER_SECOND * 1_000_000), True)


BARE = Upstream(model=UPSTREAM.model, options={"version": UPSTREAM.options["version"]})


async def test_a_failed_job_without_a_price_tells_none(provider: Replicate, sim: Simulator) -> None:
    """Then nobody knows."""
    sim.faults.script("job", Fault(kind="job", word="fails"))
    handle = await provider.submit(job(upstream=BARE))
    with pytest.raises(Failed) as caught:
        await provider.wait(handle, soon())
    assert bill(caught.value) == (None, None)


async def test_a_job_that_was_stopped_before_it_began_is_free(provider: Replicate, sim: Simulator) -> None:
    """Aborted by its own deadline: that is known without a price."""
    sim.boot_s = 60
    handle = await provider.submit(job(upstream=BARE))
    sim.jobs[handle.id].cancel_after_s = 0.05
    with pytest.raises(Failed, match="aborted") as caught:
        await provider.wait(handle, soon())
    assert bill(caught.value) == (0, False)


async def test_a_job_that_is_stopped_at_the_deadline_tells_its_bill(
    provider: Replicate, sim: Simulator, clock: Joint
) -> None:
    """The seconds until then are paid."""
    sim.faults.script("job", Fault(kind="job", word="stuck"))
    handle = await provider.submit(job())
    with pytest.raises(Expired) as caught:
        await provider.wait(handle, clock.after(0.3))
    assert caught.value.cost
    assert caught.value.cost == pytest.approx(sim.books.bills[handle.id] * 1_000_000, abs=2)


class Hours(Pace):
    """A pace for jobs that take hours, and a first look soon after the submit."""

    @override
    def delays(self, key: str, *, age: float = 0.0) -> Iterator[float]:
        return iter([3600.0 if age else 0.05, *[3600.0] * 9])


async def test_who_comes_back_looks_at_once(sim: Simulator, clock: Joint) -> None:
    """A job that was submitted long ago has probably ended."""
    async with adapter(sim) as first:
        handle = await first.submit(job())
    old = Handle(provider=handle.provider, id=handle.id, data={**handle.data, "at": f"{time.time() - 60:.3f}"})
    async with adapter(sim, clock=clock, pace=Hours(clock)) as second:
        await until(lambda: sim.jobs[handle.id].status == "succeeded")
        assert len((await second.wait(old, clock.after(10))).images) == 1
    assert sim.books.count("POST", "cancel") == 0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
async def test_after_a_cancel_the_wait_tells_the_truth(sim: Simulator, clock: Joint, elsewhere: bool) -> None:
    """What ran is paid, what was done is a result; one look tells it, with the pace of jobs that take an hour."""
    sim.run_s = 60
    hours: dict[str, Any] = {"clock": clock, "pace": Hours(clock)}
    async with adapter(sim, **hours) as first, adapter(sim, **hours) as other:
        later = other if elsewhere else first
        running = await first.submit(job())
        await until(lambda: sim.jobs[running.id].status == "processing")
        await first.cancel(running)
        with pytest.raises(Failed, match="canceled") as caught:
            await later.wait(stored(running), clock.after(10))
        sim.run_s = 0.01
        done = await first.submit(job())
        await until(lambda: sim.jobs[done.id].status == "succeeded")
        await later.cancel(stored(done))
        outcome = await later.wait(stored(done), clock.after(10))

    cost = round(sim.books.bills[running.id] * 1_000_000)
    assert bill(caught.value) == (cost, cost > 0)
    assert size(outcome.images[0]) == (48, 32)
    assert Replicate.cancels
