"""Equal calls at once: as many jobs without a key, one job under one key, however impatient their callers are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import ledger
from tests.chaos.calls import Call, Kind
from tests.chaos.clients import Answer, Client
from tests.chaos.gateway import gateway
from tests.chaos.providers import clouds

_RUN_S = 1.6


@pytest.mark.parametrize(("kind", "jobs"), [("plain", 3), ("keyed", 1)])
@pytest.mark.parametrize("timeout_s", [30.0, 1.0], ids=["patient", "impatient"])
def test_equal_calls(tmp_path: Path, kind: Kind, jobs: int, timeout_s: float) -> None:
    """Three callers have three pictures; what the SDK repeats by itself is never one job more."""
    call = Call(number=0, kind=kind, seed=10, colour=(200, 90, 30), timeout_s=timeout_s, equals=3)
    with clouds("fal", run_s=_RUN_S) as there, gateway(tmp_path, there.environ) as served:
        answers = asyncio.run(_at_once([replace(call, number=number) for number in range(3)], served.base_url))

        assert [answer.right for answer in answers] == [1, 1, 1]
        assert len({answer.job for answer in answers}) == jobs
        assert [bill.billed for bill in there.bills()] == [True] * jobs
        entries = ledger.read(served.url, {call.seed: call.colour})
        assert [(entry.state, entry.images) for entry in entries] == [("completed", 1)] * jobs


async def _at_once(calls: list[Call], base_url: str) -> list[Answer]:
    client = Client(base_url)
    try:
        return await asyncio.gather(*(client.make(call) for call in calls))
    finally:
        await client.aclose()
