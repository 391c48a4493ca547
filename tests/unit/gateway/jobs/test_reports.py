"""What is forgotten, and when: over a real database, with the time in the test's hands."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from gateway.database.schema import JOBS
from gateway.ledger.reports import JobFilter, JobReport, Reports
from gateway.ledger.statements import job_values
from gateway.ledger.store import JobEnd, Ledger
from tests.support.ledgers import attempted, ledger, order

_DAY = 86_400.0
_TTL, _PARAMETERS = 90 * _DAY, 30 * _DAY


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Ledger]:
    """An empty database."""
    async with ledger(tmp_path) as there:
        yield there


async def begun(ledger: Ledger, age_s: float, **given: Any) -> str:
    """A job that was accepted so long ago and is at a provider; its id."""
    at = time.time() - age_s
    asked = order(created_at=at, webhook_url="https://example.com/hook", **given)
    await ledger.accept(asked)
    await ledger.sending(asked, attempted(asked.id, at, sent={"prompt": "a cup"}), ())
    return asked.id


async def ended(ledger: Ledger, age_s: float, state: str = "completed") -> str:
    """A job that began and ended so long ago, whose outcome at the provider stays unknown; its id."""
    at = time.time() - age_s
    asked = order(created_at=at, webhook_url="https://example.com/hook")
    await ledger.accept(asked)
    row = attempted(asked.id, at, sent={"prompt": "a cup"}, state="unknown", cost=30_000)
    await ledger.sending(asked, row, ())
    ledger._clock = lambda: at
    await ledger.ended(asked, [row], JobEnd(state=state, cost=30_000))
    ledger._clock = time.time
    return asked.id


async def told(reports: Reports, job: str) -> JobReport:
    """What is known of a job that is there."""
    found = await reports.one(job)
    assert found is not None
    return found


async def test_old_jobs_are_forgotten(opened: Ledger) -> None:
    """What ended longer ago than the limit is gone with its attempts, however it ended; what is younger is not."""
    old = [await ended(opened, 91 * _DAY, state) for state in ("completed", "failed", "cancelled")]
    young = await ended(opened, 89 * _DAY)
    reports = Reports(opened.database)

    await reports.purge(_TTL, _PARAMETERS)

    page = await reports.page(JobFilter(), after=None, limit=100)
    assert [entry.job.order.id for entry in page.entries] == [young]
    assert [await opened.attempts(job) for job in old] == [[], [], []]
    assert (await told(reports, young)).job.cost == 30_000


async def test_the_clock_decides(opened: Ledger) -> None:
    """The same job is kept until its time is over by the clock that was given, and is forgotten then."""
    job = await ended(opened, 0)
    now = time.time()
    early = Reports(opened.database, clock=lambda: now + 89 * _DAY)
    late = Reports(opened.database, clock=lambda: now + 91 * _DAY)

    await early.purge(_TTL, _PARAMETERS)
    kept = await early.one(job)
    await late.purge(_TTL, _PARAMETERS)

    assert kept is not None
    assert await late.one(job) is None


async def test_unfinished_jobs_are_never_forgotten(opened: Ledger) -> None:
    """A job that goes on stays as it is, with all that is needed to find it at its provider, however old."""
    at_work = await begun(opened, 400 * _DAY)
    queued = order(created_at=time.time() - 400 * _DAY)
    await opened.accept(queued)
    reports = Reports(opened.database, clock=lambda: time.time() + 1000 * _DAY)

    await reports.purge(_TTL, _PARAMETERS)
    await reports.forget_payload(at_work)

    found = await told(reports, at_work)
    assert found.job.order.params == {"params": {"prompt": "a cup"}}
    assert found.job.order.webhook_url == "https://example.com/hook"
    assert found.attempts[0].sent == {"prompt": "a cup"}
    assert await reports.one(queued.id) is not None


async def test_parameters_go_earlier(opened: Ledger) -> None:
    """What was asked is forgotten while the bill stays: prompt, webhook, and what was sent; of younger jobs nothing."""
    old, young = await ended(opened, 31 * _DAY), await ended(opened, 29 * _DAY)
    reports = Reports(opened.database)

    await reports.purge(_TTL, _PARAMETERS)

    found = await told(reports, old)
    assert not found.job.order.params
    assert (found.job.order.webhook_url, found.attempts[0].sent) == (None, None)
    assert (found.job.state, found.job.cost, found.attempts[0].cost) == ("completed", 30_000, 30_000)
    kept = await told(reports, young)
    assert kept.job.order.params == {"params": {"prompt": "a cup"}}
    assert kept.attempts[0].sent == {"prompt": "a cup"}


async def test_one_payload_is_forgotten_at_once(opened: Ledger) -> None:
    """Forgetting what was asked in one job leaves the others alone."""
    one, other = await ended(opened, 1), await ended(opened, 1)
    reports = Reports(opened.database)

    await reports.forget_payload(one)

    assert not (await told(reports, one)).job.order.params
    assert (await told(reports, other)).job.order.params


async def test_many_are_forgotten_bit_by_bit(opened: Ledger) -> None:
    """More jobs than fit into one transaction are forgotten by one purge."""
    rows = [
        job_values(order(created_at=time.time() - 91 * _DAY), state="queued", owner=None, caller=None)
        for _ in range(1_100)
    ]
    finished = {"state": "completed", "ended_at": time.time() - 91 * _DAY}
    await opened.database.write(lambda c: c.execute(insert(JOBS), [{**row, **finished} for row in rows]))
    reports = Reports(opened.database)
    before = await reports.summary(JobFilter())
    await reports.purge(_TTL, _PARAMETERS)

    assert (before.count, (await reports.summary(JobFilter())).count) == (1_100, 0)


async def test_a_key_in_force_keeps_its_job(opened: Ledger) -> None:
    """However short the time of the ledger, a job stays as long as its key, or a retry without one, may ask for it."""
    now = time.time()
    jobs = {}
    for name, key, age in (
        ("key in force", "k", 3000.0), ("old key", "old", 4000.0), ("retry", None, 500.0), ("old call", None, 1000.0)
    ):  # fmt: skip
        opened._clock = lambda age=age: now - age  # type: ignore[misc]
        asked = order(created_at=now - age, idempotency_key=key)
        await opened.accept(asked)
        await opened.ended(asked, (), JobEnd(state="completed", cost=0))
        jobs[name] = asked.id
    reports = Reports(opened.database, key_ttl_s=3600.0, join_window_s=900.0)

    await reports.purge(60.0, _PARAMETERS)

    page = await reports.page(JobFilter(), after=None, limit=100)
    assert {entry.job.order.id for entry in page.entries} == {jobs["key in force"], jobs["retry"]}
