"""A database with messages in it, and postmen who send them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from gateway.database.schema import DELIVERIES, JOBS
from gateway.database.writer import Database
from gateway.ledger.records import JobSpec
from gateway.ledger.statements import job_values, messages
from gateway.webhooks.sender import CONNECTIONS, WebhookSender
from gateway.webhooks.signing import SigningKeys
from providers.http.download import untrusted_client
from providers.http.ssrf import UrlPolicy
from tests.support.ledgers import put_ledger

SECRETS = SigningKeys(bytes(range(32)))
# Nothing is measured with it: on a busy machine two hundred messages take their time.
_PATIENCE_S = 60.0


@asynccontextmanager
async def opened(url: str | None, folder: Path) -> AsyncIterator[Database]:
    """The database as a process has it: its own connections."""
    if url is None:
        put_ledger(folder)
    writer = open_engine(url, folder, writes=True)
    await asyncio.to_thread(migrate, writer)
    database = Database(writer, open_engine(url, folder, writes=False))
    try:
        yield database
    finally:
        await database.aclose()


@asynccontextmanager
async def working(
    database: Database, *allow: str, look_s: float = 0.5, leave_s: float = 1.0
) -> AsyncIterator[asyncio.Event]:
    """A postman at work; what wakes it. `allow` are origins as the operator allows them."""
    url_policy = UrlPolicy(allow=frozenset(allow))
    posted = asyncio.Event()
    async with untrusted_client(url_policy, accept="*/*", max_connections=CONNECTIONS, keepalive_s=4.0) as client:
        postman = WebhookSender(
            database, client, url_policy, SECRETS, messages_ready=posted, look_s=look_s, leave_s=leave_s
        )
        task = asyncio.create_task(postman.run())
        try:
            yield posted
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def post(database: Database, url: str, *, event: str = "completed", key: str = "key_a", count: int = 1) -> None:
    """Write messages, each of a job of its own, as the jobs do."""
    orders = [_order(f"img_{time.time_ns()}_{n}", url, event, key) for n in range(count)]
    jobs = [job_values(order, state="completed", owner=None, caller=None) for order in orders]
    rows = [row for order in orders for row in messages(order, event, state="completed")]

    def write(connection: Any) -> None:
        connection.execute(insert(JOBS), jobs)
        connection.execute(insert(DELIVERIES), rows)

    await database.write(write)


async def rows(database: Database) -> list[Any]:
    """All messages, the oldest first."""
    ordered = select(DELIVERIES).order_by(DELIVERIES.c.created_at, DELIVERIES.c.id)
    return await database.read(lambda connection: list(connection.execute(ordered)))


async def hurry(database: Database, **values: Any) -> None:
    """Let the time come at which the waiting messages are tried again. What came of their last try is forgotten: what
    stands there afterwards is the next one's."""
    due = update(DELIVERIES).where(DELIVERIES.c.state == "pending").values(next_at=0.0, answer=None, **values)
    await database.write(lambda connection: connection.execute(due))


async def until_states(database: Database, *states: str, tries: int | None = None) -> list[Any]:
    """Wait until the messages are in these states, and the last was tried so often."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found = await rows(database)
        tried = all(row.answer is not None for row in found) and (tries is None or found[-1].tries == tries)
        if tried and tuple(row.state for row in found) == states:
            return found
        assert time.monotonic() < deadline, [(row.state, row.tries, row.answer) for row in found]
        await asyncio.sleep(0.02)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _order(name: str, url: str, event: str, key: str) -> JobSpec:
    now = time.time()
    return JobSpec(
        id=name,
        key=key,
        fingerprint="f",
        model="clarity-upscaler",
        mode="background",
        params={},
        delivery={},
        wanted=1,
        estimate=0,
        created_at=now,
        deadline_at=now,
        arrived_at=now,
        webhook_url=url,
        webhook_events=(event,),
    )
