"""One key, many calls at once, in several processes: one of them buys, and none of them meets an error of ours."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.ledger.store import JobEnd, Ledger
from tests.support.ledgers import ledger, order


@pytest.mark.system
async def test_concurrent_calls_on_postgres(tmp_path: Path, postgres_ledger: str) -> None:
    """After a job that bought nothing many calls with its key take its place at once: one does, each time."""
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(ledger(tmp_path, postgres_ledger, lease_s=60.0)) for _ in range(6)]
        for number in range(40):
            first = order(idempotency_key=f"k{number}")
            assert await ledgers[0].accept(first) is None
            error = {"kind": "interrupted", "billed": False}
            await ledgers[0].ended(first, (), JobEnd(state="failed", cost=0, error=error))
            calls = [order(idempotency_key=f"k{number}") for _ in ledgers]
            accepting = [one.accept(call) for one, call in zip(ledgers, calls, strict=True)]
            found = await asyncio.gather(*accepting, return_exceptions=True)
            new = [call.id for call, row in zip(calls, found, strict=True) if row is None]
            assert [row for row in found if isinstance(row, BaseException)] == []
            assert len(new) == 1
            assert {row.order.id for row in found if not isinstance(row, BaseException | None)} == set(new)


async def test_a_commit_whose_answer_was_lost(tmp_path: Path) -> None:
    """A write that is made once more, for nobody heard that it had been made, finds its own job and begins it."""
    async with ledger(tmp_path) as opened:
        for key in (None, "k"):
            asked = order(mode="background", idempotency_key=key)
            assert await opened.accept(asked) is None
            assert await opened.accept(asked) is None
        found = await opened.accept(order(mode="background", idempotency_key="k"))
        assert found is not None
        assert found.order.id == asked.id


async def _two(stack: AsyncExitStack, folder: Path, url: str | None) -> tuple[Ledger, Ledger]:
    one, two = [await stack.enter_async_context(ledger(folder, url, lease_s=60.0)) for _ in range(2)]
    return one, two


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.system)])
async def test_a_repetition_that_is_quicker(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    """A request that its caller gave up, and that is written down after its repetition elsewhere, is the same job."""
    url = request.getfixturevalue("postgres_ledger") if database == "postgres" else None
    async with AsyncExitStack() as stack:
        one, two = await _two(stack, tmp_path, url)
        first = order(mode="background")
        repeated = order(mode="background", retry=1)
        assert (await two.match(repeated, 1)).joined is None
        assert await two.accept(repeated) is None

        found = await one.accept(first)
        assert found is not None
        assert found.order.id == repeated.id


async def test_a_repetition_that_looked_too_early(tmp_path: Path) -> None:
    """A repetition looks once more when it is written down: the first request may have been since it looked."""
    async with AsyncExitStack() as stack:
        one, two = await _two(stack, tmp_path, None)
        first, repeated = order(mode="background"), order(mode="background", retry=1)
        assert (await two.match(repeated, 1)).joined is None
        assert await one.accept(first) is None

        found = await two.accept(repeated)
        assert found is not None
        assert found.order.id == first.id


async def test_another_call_that_is_alike(tmp_path: Path) -> None:
    """A call that comes after another's repetition is a call of its own, and so are two first calls."""
    async with ledger(tmp_path) as opened:
        assert await opened.accept(order(mode="background", retry=1)) is None
        assert await opened.accept(order(mode="background", arrived_at=time.time() + 1)) is None
        assert await opened.accept(order(mode="background", fingerprint="another")) is None
        assert await opened.accept(order(mode="background", fingerprint="another")) is None


@pytest.mark.system
async def test_repetitions_at_once_on_postgres(tmp_path: Path, postgres_ledger: str) -> None:
    """Of a request and its repetitions, written down by several processes at once, one is a new job."""
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(ledger(tmp_path, postgres_ledger, lease_s=60.0)) for _ in range(3)]
        for number in range(40):
            calls = [order(mode="background", fingerprint=f"f{number}", retry=retry) for retry in range(3)]
            found = await asyncio.gather(*(one.accept(call) for one, call in zip(ledgers, calls, strict=True)))
            assert found.count(None) == 1
