"""The adapter for fal at a deadline: a job is ended, and seen to end, and not lost if it completes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from normalization.values import Value
from providers.errors import Expired, Unfetched, Unknown
from providers.fal.adapter import Fal
from providers.kit.polling import Pace
from tests.contract.fal_setup import CLARITY, Joint, adapter, begun, job, soon
from tests.simulators.common import Fault, html, size
from tests.simulators.fal import FalAi
from tests.support.fake_cog import until
from tests.support.links import free_of_charge


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
def clock(sim: FalAi) -> Joint:
    return Joint(sim)


@pytest.fixture
async def fal(sim: FalAi, clock: Joint) -> AsyncIterator[Fal]:
    async with adapter(sim, clock=clock) as made:
        yield made


async def test_after_the_deadline_nothing_is_bought(fal: Fal, sim: FalAi) -> None:
    """A job that nobody waits for any more is not submitted."""
    with pytest.raises(Expired):
        await fal.submit(job(seconds=-1))
    assert sim.seen == []


async def test_a_job_at_its_deadline_is_cancelled_and_seen_to_end(fal: Fal, sim: FalAi, clock: Joint) -> None:
    """Expired means that nothing runs any more, and nothing was billed."""
    sim.faults.script("job", Fault(kind="job", word="STUCK"))
    handle = await begun(fal)
    with pytest.raises(Expired):
        await fal.wait(handle, clock.after(0.4))
    assert len(sim.asked("PUT", "/cancel")) == 1
    assert sim.books.billed == 0


async def test_a_cancel_that_comes_too_late_is_a_result(fal: Fal, sim: FalAi, clock: Joint) -> None:
    """202 may still complete: the picture is paid for, and delivered beyond the deadline."""
    sim.run_s = 0.6
    sim.faults.script("job", Fault(kind="job", word="UNSTOPPABLE"))
    handle = await begun(fal)
    outcome = await fal.wait(handle, clock.after(0.3))
    assert size(outcome.images[0]) == (48, 32)
    assert len(sim.asked("PUT", "/cancel")) == 1


async def test_a_deadline_in_the_middle_of_the_download(fal: Fal, sim: FalAi, clock: Joint) -> None:
    """There is nothing to cancel: the job is paid for, and whoever comes back has its picture."""
    sim.faults.script("download", Fault(kind="hang"))
    handle = await begun(fal)
    with pytest.raises(Unfetched):
        await fal.wait(handle, clock.after(0.5))
    assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert sim.asked("PUT", "/cancel") == []
    assert sim.books.billed == 1


@pytest.mark.parametrize("fault", [html(502), Fault(kind="cut"), Fault(status=404, body={"detail": "x"})])
async def test_already_completed_is_a_result(sim: FalAi, clock: Joint, fault: Fault) -> None:
    """400 ALREADY_COMPLETED, and the page that tells how a job stands fails: its result is asked for without it."""
    sim.faults.always("poll", fault)
    async with adapter(sim, clock=clock, lost_after_s=3600) as fal:
        handle = await begun(fal)
        outcome = await fal.wait(handle, clock.after(0.5))
    assert size(outcome.images[0]) == (48, 32)
    assert len(sim.asked("PUT", "/cancel")) == 1
    assert sim.books.billed == 1


async def test_a_job_that_does_not_stop_is_unknown(sim: FalAi, clock: Joint) -> None:
    """As long as it may run, nothing else may be bought: by wait and by cancel alike."""
    sim.faults.script("job", Fault(kind="job", word="STUBBORN"))
    async with adapter(sim, clock=clock, cancel_timeout_s=1) as fal:
        handle = await begun(fal)
        with pytest.raises(Unknown, match="not seen to end"):
            await fal.wait(handle, clock.after(0.3))
        with pytest.raises(Unknown, match="not seen to end"):
            await fal.cancel(handle)


async def test_a_result_that_cannot_be_had_is_to_be_fetched(sim: FalAi, clock: Joint) -> None:
    """The job ended and is paid for; that its result does not come is no reason to buy another one."""
    sim.faults.always("result", Fault(status=502, body=b"<html>"))
    async with adapter(sim, clock=clock, fetch_timeout_s=1) as fal:
        handle = await begun(fal)
        with pytest.raises(Unfetched, match=r"not fetched yet.*HTTP 502"):
            await fal.wait(handle, clock.after(0.5))
        sim.faults.clear()
        assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert sim.books.billed == 1


@pytest.mark.parametrize("body", [{"status": "OK"}, {"success": True}])
async def test_a_job_that_is_out_of_the_queue_has_no_result(fal: Fal, sim: FalAi, clock: Joint, body: Value) -> None:
    """Removed before it ran: there is nothing to wait for."""
    sim.run_s = 30
    sim.faults.script("cancel", Fault(status=200, body=body))
    handle = await begun(fal)
    with pytest.raises(Expired):
        await fal.wait(handle, clock.after(0.3))
    assert {seen.path.rpartition("/")[2] for seen in sim.asked("GET")} == {"status"}


async def test_a_job_that_was_taken_out_of_the_queue_costs_nothing(fal: Fal, sim: FalAi, clock: Joint) -> None:
    """OK is fal's word that it never ran: wait says so at once, though fal does not know the job any more."""
    sim.queue_s, sim.removes = 30, True
    handle = await begun(fal)
    with pytest.raises(Expired) as caught:
        await fal.wait(handle, clock.after(0.2))
    assert free_of_charge(caught.value)
    other = await begun(fal)
    await fal.cancel(other)
    before = len(sim.asked("GET"))
    for _ in range(2):
        with pytest.raises(Expired, match="cancelled") as caught:
            await fal.wait(other, soon(600))
        assert free_of_charge(caught.value)
    assert len(sim.asked("GET")) == before
    assert sim.books.billed == 0


async def test_whoever_waits_while_another_cancels_hears_it(sim: FalAi) -> None:
    """A job that vanishes in front of its waiter because it was cancelled is no vanished job."""
    sim.queue_s, sim.removes = 3600, True
    async with adapter(sim, lost_after_s=0.3) as fal:
        handle = await begun(fal)
        waiter = asyncio.create_task(fal.wait(handle, soon()))
        await until(lambda: sim.asked("GET"))
        await fal.cancel(handle)
        with pytest.raises(Expired) as caught:
            await waiter
    assert free_of_charge(caught.value)


async def test_wait_after_a_cancel_that_came_too_late_is_quick(sim: FalAi, clock: Joint) -> None:
    """The job completed nevertheless: wait does not wait until a job like it is usually done."""
    slow = Pace(clock)
    for _ in range(8):
        slow.learn(f"fal/{CLARITY}/9", 60)
    sim.run_s = 0.3
    sim.faults.script("job", Fault(kind="job", word="UNSTOPPABLE"))
    async with adapter(sim, clock=clock, pace=slow) as fal:
        handle = await begun(fal)
        await fal.cancel(handle)
        assert size((await fal.wait(handle, clock.after(0.3))).images[0]) == (48, 32)
    assert len(sim.asked("PUT")) == 1


async def test_a_running_job_that_was_cancelled_may_have_cost_something(fal: Fal, sim: FalAi) -> None:
    """499 without units: nobody knows."""
    sim.run_s = 30
    handle = await begun(fal)
    await fal.cancel(handle)
    with pytest.raises(Expired) as caught:
        await fal.wait(handle, soon())
    assert (caught.value.cost, caught.value.billed) == (None, None)
    assert fal.cancels


async def test_a_page_is_no_word_of_a_cancel(sim: FalAi) -> None:
    """200 from something between proves nothing: the job is watched, and is not seen to end."""
    sim.run_s = 30
    sim.faults.script("cancel", html(200))
    async with adapter(sim, cancel_timeout_s=0.4) as fal:
        handle = await begun(fal)
        with pytest.raises(Unknown):
            await fal.cancel(handle)


async def test_a_cancelled_job_may_be_gone(fal: Fal, sim: FalAi) -> None:
    """After a cancel that was taken, not to be found is an end."""
    sim.run_s = 30
    handle = await begun(fal)
    sim.faults.always("poll", Fault(status=404, body={"detail": "Request not found"}))
    await fal.cancel(handle)
    assert len(sim.asked("GET")) == 1


async def test_a_job_that_a_cancel_does_not_find_is_unknown(fal: Fal, sim: FalAi, clock: Joint) -> None:
    """Not known any more is not ended: it may have run. There is nothing to stop, so cancel itself is content."""
    sim.run_s = 30
    sim.faults.always("cancel", Fault(status=404, body={"status": "NOT_FOUND"}))
    handle = await begun(fal)
    with pytest.raises(Unknown, match="vanished"):
        await fal.wait(handle, clock.after(0.3))
    before = len(sim.asked("PUT"))
    await fal.cancel(handle)
    assert before >= 3
    assert len(sim.asked("PUT")) >= before + 3


async def test_cancel_then_wait(fal: Fal, sim: FalAi) -> None:
    """A caller may cancel by itself; what wait finds then is fal's word that it was cancelled."""
    sim.run_s = 30
    handle = await begun(fal)
    await fal.cancel(handle)
    with pytest.raises(Expired, match="499"):
        await fal.wait(handle, soon())
    await fal.cancel(handle)
    assert sim.books.billed == 0


async def test_cancel_of_a_job_that_has_ended_is_harmless(fal: Fal, sim: FalAi) -> None:
    """Its result stays, and may be fetched after."""
    handle = await begun(fal)
    await fal.cancel(handle)
    assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)


async def test_a_cancel_is_said_until_it_is_heard(sim: FalAi, clock: Joint) -> None:
    """An answer that says nothing is no cancel; without any it is Unknown."""
    sim.run_s = 30
    sim.faults.script("cancel", Fault(status=500), Fault(kind="cut"), Fault(status=200, body={"success": False}))
    async with adapter(sim, clock=clock, cancel_timeout_s=10) as fal:
        handle = await begun(fal)
        with pytest.raises(Expired):
            await fal.wait(handle, clock.after(0.3))
    assert sim.books.billed == 0
    sim.faults.always("cancel", Fault(status=500))
    async with adapter(sim, cancel_timeout_s=0.3) as fal:
        handle = await begun(fal)
        with pytest.raises(Unknown):
            await fal.cancel(handle)
