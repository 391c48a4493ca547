"""One key, many calls at once, in several processes: one of them buys, and none of them meets an error of ours."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.jobs.ledger import End
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
            await ledgers[0].ended(first, (), End(state="failed", cost=0, error=error))
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
