"""A provider's job belongs to one attempt: of equal calls whose submits were lost each finds one of its own."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import override

from gateway.imaging.pool import ImagePool
from gateway.jobs.manager import JobManager
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.records import AllFailed, AttemptRow
from gateway.ledger.store import UpstreamJobClaimed
from providers.base import Handle, PendingSubmit
from providers.errors import Unknown
from tests.support.ledgers import jobs_of, ledger, order, outlast
from tests.unit.gateway.jobs.scripted import Scripted, candidates, executing, png


@dataclass(eq=False)
class Listing(Scripted):
    """A provider that lists the jobs that it has taken; which of them is whose it cannot tell."""

    listed: list[str] = field(default_factory=list)

    @override
    async def recover(self, sent: PendingSubmit) -> Handle | None:
        self.sought.append(sent)
        found = next((name for name in self.listed if name not in sent.claimed_ids), None)
        if found is None:
            raise Unknown("it is not listed")
        return Handle(provider=self.name, id=found)


async def taken_up(jobs: JobManager, *names: str) -> list[AttemptRow]:
    """Take up what another process left, and give the attempts of these jobs when they have ended."""
    await outlast(jobs.ledger)
    await RecoveryLoop(jobs, lease_s=1.0).adopt_orphans()
    until = asyncio.get_running_loop().time() + 10
    for name in names:
        await jobs.ended(name, until)
    return [attempt for name in names for attempt in await jobs.ledger.attempts(name)]


@pytest.mark.parametrize("listed", [["a", "b"], ["a"]])
async def test_equal_calls_whose_submits_were_lost(imaging: ImagePool, tmp_path: Path, listed: list[str]) -> None:
    """Two attempts never have one job: where only one was taken, of the other one nobody knows."""
    dying = Listing("sim", deque())
    dying.hold_submit = asyncio.Event()
    sim = Listing("sim", deque([png(), png()]), listed=listed)
    asked = [order(idempotency_key=key) for key in ("1", "2")]
    async with ledger(tmp_path) as first, ledger(tmp_path) as second:
        before = jobs_of(executing(imaging, dying), first)
        for one in asked:
            await before.place(one, candidates(["sim"]))
        while len(dying.jobs) < 2:  # noqa: ASYNC110 - a provider's list, not a thing of ours
            await asyncio.sleep(0.005)
        # Killed, as far as others see: its lock is free, and nothing more happens.
        first.processes.unlock()

        after = jobs_of(executing(imaging, sim), second)
        attempts = await taken_up(after, *(one.id for one in asked))

        assert sorted(attempt.handle.id for attempt in attempts if attempt.handle) == listed
        assert sorted(str(attempt.outcome) for attempt in attempts) == ["ok", "ok" if len(listed) == 2 else "unknown"]
        assert sim.jobs == []
        for job in before.active():
            job.task.cancel()


async def test_a_lost_answer_is_never_that_of_another_call(imaging: ImagePool, tmp_path: Path) -> None:
    """Also while nothing crashes: what is found for a lost submit may be somebody else's, of another process."""
    sim = Listing("sim", deque([png(), png()]), listed=["dr-of-another"])
    async with ledger(tmp_path) as opened:
        jobs = jobs_of(executing(imaging, sim), opened)
        first = await jobs.place(order(), candidates(["sim"]))
        await jobs.ended(first.id, asyncio.get_running_loop().time() + 10)
        [attempt] = await opened.attempts(first.id)
        assert attempt.handle is not None

        class Same(Listing):
            @override
            async def submit(self, *args: object, **more: object) -> Handle:
                handle = await super().submit(*args, **more)  # type: ignore[arg-type]
                assert attempt.handle is not None
                return Handle(provider=handle.provider, id=attempt.handle.id)

        same = Same("sim", deque([png()]), listed=[attempt.handle.id])
        again = jobs_of(executing(imaging, same), opened)
        second = await again.place(order(), candidates(["sim"]))
        with pytest.raises(AllFailed):
            await again.wait(second.id, asyncio.get_running_loop().time() + 10)
        [lost] = await opened.attempts(second.id)
        assert (lost.state, lost.handle) == ("unknown", None)
        assert [sent.claimed_ids for sent in same.sought] == [frozenset({attempt.handle.id})]

        with pytest.raises(UpstreamJobClaimed):
            await opened.submitted(lost.id, attempt.handle, 1.0)


async def test_who_looks_is_told_of_the_others(imaging: ImagePool, tmp_path: Path) -> None:
    """Already the first look leaves out what is known to be another attempt's, of that provider and time."""
    dying = Listing("sim", deque([png()]))
    elsewhere = Listing("elsewhere", deque([png()]))
    sim = Listing("sim", deque([png()]), listed=["a"])
    async with ledger(tmp_path) as first, ledger(tmp_path) as second:
        before = jobs_of(executing(imaging, dying, elsewhere), first)
        for name in ("sim", "elsewhere"):
            known = await before.place(order(), candidates([name]))
            await before.ended(known.id, asyncio.get_running_loop().time() + 10)
        dying.hold_submit = asyncio.Event()
        lost = await before.place(order(idempotency_key="1"), candidates(["sim"]))
        while len(dying.jobs) < 2:  # noqa: ASYNC110 - a provider's list, not a thing of ours
            await asyncio.sleep(0.005)
        first.processes.unlock()

        [attempt] = await taken_up(jobs_of(executing(imaging, sim), second), lost.id)

        assert attempt.outcome == "ok"
        assert [sent.claimed_ids for sent in sim.sought] == [frozenset({dying.jobs[0].id})]
        for job in before.active():
            job.task.cancel()
