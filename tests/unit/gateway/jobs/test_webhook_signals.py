"""Bells: a webhook ends a wait before its time, and nothing else does."""

import asyncio

from gateway.jobs.context import WebhookSignals
from providers.clock import CLOCK
from tests.support.clock import Skipping


async def test_a_ring_ends_a_wait() -> None:
    """Whoever waits is woken by what says that the job has ended, or that names it; both are good for one wait."""
    signals = WebhookSignals()
    for name, ended in (("job-1", False), ("job-1", True), (None, True)):
        waiting = asyncio.create_task(signals.sleep("a", 60, CLOCK))
        await asyncio.sleep(0)
        signals.notify("a", name, ended=ended)
        await asyncio.wait_for(waiting, 10)


async def test_what_tells_nothing_new_wakes_nobody() -> None:
    """A webhook of a job that goes on, and whose name is known, is no reason to look; nor is another attempt's."""
    signals = WebhookSignals()
    signals.notify("a", "job-1", ended=False)
    await signals.sleep("a", 60, CLOCK)  # for the name, which had come before
    waiting = asyncio.create_task(signals.sleep("a", 60, CLOCK))
    signals.notify("a", "job-1", ended=False)
    signals.notify("b", "job-2")
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    waiting.cancel()


async def test_waits_go_by_the_clock() -> None:
    """Where nothing rings, the clock that was handed in says when a wait is over."""
    signals, clock = WebhookSignals(), Skipping()
    await signals.sleep("a", 3600, clock)
    assert await signals.wait_for_id("a", 3600, clock) is None
    assert clock.slept[0] == 3600

    signals.notify("a", "job-1")
    assert await signals.wait_for_id("a", 3600, clock) == "job-1"
