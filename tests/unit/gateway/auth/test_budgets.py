"""Budgets and jobs at once as the ledger keeps them, over both databases and in two processes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.auth import store as key_store
from gateway.auth.budgets import reserve
from gateway.auth.keys import ApiKey, Budget, BudgetExceeded, ConcurrencyExceeded, Quota
from gateway.ledger.records import AttemptRow, JobSpec
from gateway.ledger.store import JobEnd, Ledger
from tests.support.ledgers import attempted, ledger, order

KEY = "key_0123456789abcdef"
PRICE = 30_000
_NUMBERS = count()


@dataclass(slots=True)
class Shop:
    """Two processes' ledgers of one database, in which one key has a budget of ten pictures a month."""

    ledgers: tuple[Ledger, Ledger]
    budget: Budget = field(default_factory=lambda: Budget(limit=10 * PRICE, every="month"))

    def order(self, *, wanted: int = 1, concurrency: int | None = None, budget: bool = True, **given: Any) -> JobSpec:
        """An order of the key."""
        quota = Quota(budget=self.budget if budget else None, concurrency=concurrency)
        plain = {"key": KEY, "fingerprint": f"f{next(_NUMBERS)}", "wanted": wanted, "estimate": wanted * PRICE}
        return order(**{**plain, "quota": quota, **given})

    async def send(
        self, job: JobSpec, *, at: int = 0, price: int = PRICE, most: int = 0, ended: tuple[AttemptRow, ...] = ()
    ) -> AttemptRow:
        """Write down that an attempt is about to leave, which may come to `most`."""
        attempt = replace(attempted(job.id, time.time(), estimate=price), reserve=most)
        await self.ledgers[at].sending(job, attempt, ended)
        return attempt

    async def end(self, job: JobSpec, cost: int, *attempts: AttemptRow, at: int = 0) -> None:
        """Write down that a job has ended."""
        state = "completed" if cost else "failed"
        await self.ledgers[at].ended(job, attempts, JobEnd(state=state, cost=cost, error={"kind": "failed"}))

    async def spent(self) -> int:
        """What the key has spent in this month."""
        name = self.budget.period(time.time()).name
        return await self.ledgers[1].database.read(lambda connection: key_store.spent_in(connection, KEY, name) or 0)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.system)])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop over either database."""
    url = request.getfixturevalue("postgres_ledger") if request.param == "postgres" else None
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(ledger(tmp_path, url, lease_s=30)) for _ in range(2)]
        api_key = ApiKey(id=KEY, name="shop", digest=b"x")
        await first.database.write(lambda connection: key_store.add(connection, api_key))
        yield Shop((first, second))


def finished(attempt: AttemptRow, cost: int, outcome: str = "ok") -> AttemptRow:
    """An attempt that has ended."""
    return replace(attempt, state="ended", outcome=outcome, cost=cost, actual=True, ended_at=time.time())


async def test_a_budget_is_held_and_settled(shop: Shop) -> None:
    """Before the submit the estimate, afterwards what it cost; a failure gives back what it held."""
    job = shop.order()
    attempt = await shop.send(job)
    assert await shop.spent() == PRICE
    await shop.end(job, 21_000, finished(attempt, 21_000))
    assert await shop.spent() == 21_000

    job = shop.order(wanted=4)
    attempt = await shop.send(job)
    assert await shop.spent() == 21_000 + 4 * PRICE
    await shop.end(job, 0, finished(attempt, 0, "rejected"))
    assert await shop.spent() == 21_000


async def test_what_is_bought_later_is_held_too(shop: Shop) -> None:
    """A job that goes on to a dearer route holds what both may come to; what did not cost anything is free again."""
    job = shop.order()
    first = await shop.send(job)
    await shop.send(job, price=3 * PRICE, ended=(finished(first, PRICE, "failed"),))
    assert await shop.spent() == 4 * PRICE

    job = shop.order()
    first = await shop.send(job)
    await shop.send(job, price=PRICE, ended=(finished(first, 0, "rejected"),))
    assert await shop.spent() == 5 * PRICE


async def test_what_it_may_come_to_is_held(shop: Shop) -> None:
    """Not what is expected: of calls at once none may take more out of a budget than is left in it."""
    job = shop.order(wanted=2, reserve=6 * PRICE)
    first = await shop.send(job, most=3 * PRICE)
    second = await shop.send(job, most=3 * PRICE)
    assert await shop.spent() == 6 * PRICE
    with pytest.raises(BudgetExceeded, match=r"has \$0\.1200 left; this request needs \$0\.1500"):
        await shop.send(shop.order(reserve=5 * PRICE), at=1, most=5 * PRICE)

    failed = (finished(first, PRICE, "failed"), finished(second, 0, "failed"))
    await shop.send(job, price=2 * PRICE, most=4 * PRICE, ended=failed)
    assert await shop.spent() == 6 * PRICE
    await shop.send(job, price=2 * PRICE, most=4 * PRICE)
    assert await shop.spent() == 9 * PRICE
    await shop.end(job, 2 * PRICE)
    assert await shop.spent() == 2 * PRICE


async def test_an_attempt_that_is_sent_again(shop: Shop) -> None:
    """One that is sent once more, with another of the provider's keys, is held once, and stands there once."""
    job = shop.order(wanted=10)
    attempt = await shop.send(job)
    await shop.ledgers[0].sending(job, replace(attempt, sent={"account": "second"}), ())

    assert await shop.spent() == 10 * PRICE
    found = await shop.ledgers[0].attempts(job.id)
    assert [one.sent for one in found] == [{"account": "second"}]


async def test_over_the_budget(shop: Shop) -> None:
    """What it does not reach for is not written down as sent, and the message says how much is left, until when."""
    job = shop.order(wanted=8)
    await shop.send(job)
    with pytest.raises(
        BudgetExceeded, match=r"budget of \$0\.30/month has \$0\.0600 left; this request needs \$0\.0900"
    ) as caught:
        await shop.send(shop.order(wanted=3), at=1)
    assert str(shop.budget.period(time.time()).until) in str(caught.value)
    assert await shop.spent() == 8 * PRICE

    with pytest.raises(BudgetExceeded):
        await shop.send(job, price=11 * PRICE)
    assert await shop.spent() == 8 * PRICE
    assert len(await shop.ledgers[0].attempts(job.id)) == 1

    await shop.send(shop.order(wanted=2), at=1)
    assert await shop.spent() == 10 * PRICE


async def test_what_costs_nothing_is_always_reached_for(shop: Shop) -> None:
    """A key that has spent more than its budget may still have its own machine's work."""
    job = shop.order(wanted=10)
    attempt = await shop.send(job)
    await shop.end(job, 15 * PRICE, finished(attempt, 15 * PRICE))

    await shop.send(shop.order(estimate=0), price=0)
    with pytest.raises(BudgetExceeded, match=r"has \$0\.0000 left"):
        await shop.send(shop.order())


async def test_of_many_at_once_ten(shop: Shop) -> None:
    """Of sixty submits in two processes at the same time exactly those are written down that the budget reaches for."""

    async def attempt(number: int) -> bool:
        try:
            await shop.send(shop.order(), at=number % 2)
        except BudgetExceeded:
            return False
        return True

    sent = await asyncio.gather(*(attempt(number) for number in range(60)))

    assert sum(sent) == 10
    assert await shop.spent() == 10 * PRICE


async def test_the_period_that_held_it_pays(shop: Shop) -> None:
    """A job that began before the end of the month is settled in the month that it began in."""
    budget, now = shop.budget, time.time()
    before = budget.period(now).start - 1
    for one in shop.ledgers:
        one._clock = lambda: before
    job = shop.order(created_at=before)
    attempt = await shop.send(job)
    for one in shop.ledgers:
        one._clock = time.time
    await shop.end(job, 21_000, finished(attempt, 21_000))

    assert await shop.spent() == 0
    name = budget.period(before).name
    read = shop.ledgers[0].database.read
    assert await read(lambda connection: key_store.spent_in(connection, KEY, name)) == 21_000
    await shop.send(shop.order(wanted=10))


async def test_what_was_spent_before_there_was_a_budget_counts(shop: Shop) -> None:
    """A month's account begins with what the key has had in that month."""
    job = shop.order(quota=None)
    attempt = await shop.send(job)
    await shop.end(job, 9 * PRICE, finished(attempt, 9 * PRICE))

    await shop.send(shop.order())
    assert await shop.spent() == 10 * PRICE
    with pytest.raises(BudgetExceeded):
        await shop.send(shop.order())


async def test_jobs_at_once(shop: Shop) -> None:
    """As many of a key's jobs go on as may, in both processes together; one that ends makes room."""
    jobs = [shop.order(concurrency=2, budget=False) for _ in range(2)]
    for at, job in enumerate(jobs):
        await shop.send(job, at=at)
    await shop.send(jobs[0])
    with pytest.raises(ConcurrencyExceeded, match="This API key has 2 running jobs, and 2 is its limit"):
        await shop.send(shop.order(concurrency=2, budget=False))
    await shop.end(jobs[1], 0, at=1)
    await shop.send(shop.order(concurrency=2, budget=False), at=1)


@pytest.mark.system
async def test_who_charges_the_same_key_waits(postgres_ledger: str, tmp_path: Path) -> None:
    """Two machines look at the last of a budget in the same moment: the second one sees what the first one took."""
    url = postgres_ledger
    async with ledger(tmp_path, url, lease_s=30) as one, ledger(tmp_path, url, lease_s=30) as two:
        shop = Shop((one, two))
        await one.database.write(lambda connection: key_store.add(connection, ApiKey(id=KEY, digest=b"x")))
        await shop.send(shop.order(wanted=9))
        first = shop.order()
        await one.accept(first)
        looked, go = threading.Event(), threading.Event()

        def reservation(connection: Connection) -> None:
            """Take the last of it, and keep the transaction open."""
            assert first.quota is not None
            reserve(connection, first.id, KEY, first.quota, whole=PRICE, now=time.time())
            looked.set()
            go.wait(20)

        holding = asyncio.create_task(one.database.write(reservation))
        await asyncio.to_thread(looked.wait, 20)
        second = asyncio.create_task(shop.send(shop.order(), at=1))
        done, _ = await asyncio.wait({second}, timeout=0.5)
        assert not done
        go.set()
        await holding
        with pytest.raises(BudgetExceeded):
            await second
        assert await shop.spent() == 10 * PRICE
