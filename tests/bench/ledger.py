"""`python -m tests.bench.ledger`: what a plain call pays for its writes. Compare within one run only."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.ledger.records import AttemptRow, OutputSpec
from gateway.ledger.store import JobEnd, Ledger
from providers.base import Handle, Upstream
from tests.support.ledgers import ledger, order
from tests.support.postgres import binaries, postgres

JOBS = 500
CONCURRENT = 64
WARM = 20

Times = dict[str, list[float]]


async def main() -> None:
    """Measure and print."""
    print("milliseconds: median and p95 of one call; CPU of this process, per call")
    print(f"  {'':<32}{'on its way':>16}{'sending':>16}{'ended':>16}{'beside: submitted':>20}{'CPU':>8}")
    async with embedded() as opened:
        await measure("SQLite", opened)
    if binaries() is None:
        print("  no Postgres here")
        return
    with postgres() as server, tempfile.TemporaryDirectory() as folder:
        # Without fsync: the server of the tests runs so, and what is left is the way there and back.
        async with ledger(Path(folder), server.url, lease_s=60.0) as opened:
            await measure("Postgres, no fsync", opened)


@asynccontextmanager
async def embedded() -> AsyncIterator[Ledger]:
    """A ledger in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        async with ledger(Path(folder), lease_s=60.0) as opened:
            yield opened


async def measure(name: str, opened: Ledger) -> None:
    """Two lines of the table: one call after another, and many at once."""
    await load(opened, WARM, 1)
    for concurrency in (1, CONCURRENT):
        began = time.process_time()
        times = await load(opened, JOBS, concurrency)
        cpu = (time.process_time() - began) * 1000 / JOBS
        columns = [shown(times[key]) for key in ("way", "sending", "ended", "submitted")]
        label = f"{name}, {concurrency} at once"
        print(f"  {label:<32}{columns[0]:>16}{columns[1]:>16}{columns[2]:>16}{columns[3]:>20}{cpu:>8.2f}")


async def load(opened: Ledger, jobs: int, concurrency: int) -> Times:
    """Write jobs down, so many of them at once; the seconds of each write."""
    times: Times = defaultdict(list)
    left = iter(range(jobs))

    async def caller() -> None:
        for _ in left:
            await call(opened, times)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    # The last of what nobody waits for counts as well.
    await opened.database.write(lambda connection: None)
    return times


async def call(opened: Ledger, times: Times) -> None:
    """The writes of one plain call that succeeds: before its request, when it is taken, before its answer, after it."""
    asked = order()
    attempt = AttemptRow(
        id=f"{asked.id}_1",
        job=asked.id,
        number=0,
        provider="made-up",
        route="made-up/one",
        model="one",
        upstream=Upstream(model="one"),
        making=OutputSpec(),
        state="submitting",
        estimate=30_000,
        sent_at=time.time(),
    )
    ended = replace(attempt, state="ended", outcome="ok", cost=30_000, actual=True, ended_at=time.time())
    began = time.perf_counter()
    await opened.sending(asked, attempt, [])
    sent = time.perf_counter()
    await opened.submitted(attempt.id, Handle(provider="made-up", id=asked.id), time.time())
    taken = time.perf_counter()
    await opened.ended(asked, [ended], JobEnd(state="completed", cost=30_000, result={"files": ["one.png"]}))
    done = time.perf_counter()
    opened.left(asked.id, delivered=True)
    for name, seconds in (
        ("sending", sent - began),
        ("submitted", taken - sent),
        ("ended", done - taken),
        ("way", sent - began + done - taken),
    ):
        times[name].append(seconds)


def shown(seconds: list[float]) -> str:
    """Median and 95th percentile in milliseconds."""
    return f"{statistics.median(seconds) * 1000:.2f} {statistics.quantiles(seconds, n=20)[-1] * 1000:.2f}"


if __name__ == "__main__":
    asyncio.run(main())
