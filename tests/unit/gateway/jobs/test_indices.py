"""What the ledger does for one call reads few rows, however many there are: each look goes by an index that fits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import event

from gateway.auth.keys import Budget, Quota
from gateway.ledger.store import JobEnd
from providers.base import Handle
from tests.support.ledgers import attempted, ledger, order


async def test_every_look_of_a_call_goes_by_an_index(tmp_path: Path) -> None:
    """None reads a whole table; a key's jobs are looked up by what tells them apart, not one after the other."""
    plans: dict[str, str] = {}

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split()[0] in ("SELECT", "UPDATE", "DELETE"):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans[statement] = " ".join(row[3] for row in rows)

    async with ledger(tmp_path, lease_s=60.0) as opened:
        event.listen(opened.database._writer, "before_cursor_execute", explain)
        quota = Quota(budget=Budget(limit=10_000_000, every="month"), concurrency=5)
        first = order(key="k", idempotency_key="once", quota=quota)
        await opened.accept(first)
        for asked in (first, order(key="k", quota=quota)):
            row = attempted(asked.id, time.time())
            await opened.sending(asked, row, ())
            await opened.submitted(row.id, Handle(provider="fal", id=asked.id), time.time())
            ended = replace(row, state="ended", outcome="ok", cost=7, ended_at=time.time())
            await opened.ended(asked, [ended], JobEnd(state="completed", cost=7, result={}))
            opened.left(asked.id, delivered=True)
        await opened.match(order(key="k"), 1)

    assert len(plans) > 10
    # A period's account is summed up from the key's jobs once, when the first call in it comes.
    once = [plan for text, plan in plans.items() if "sum(CASE" in text and "FROM jobs" in text]
    assert once == ["SEARCH jobs USING INDEX jobs_by_key (key=? AND created_at>? AND created_at<?)"]
    for text, plan in plans.items():
        assert "SCAN" not in plan, (text, plan)
    (going,) = [plan for text, plan in plans.items() if "count(*)" in text]
    assert "jobs_by_key_and_state (key=? AND state=?)" in going
    (alike,) = [plan for text, plan in plans.items() if "fingerprint = ?" in text and "joins" in text]
    assert "jobs_by_fingerprint (key=? AND fingerprint=? AND created_at>?)" in alike
