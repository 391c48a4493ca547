"""Keys take turns with their messages: one with many, or with slow receivers, does not hold up another one's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, text

from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from gateway.database.schema import DELIVERIES
from gateway.webhooks.outbox import WebhookMessage, take
from gateway.webhooks.sender import AT_ONCE
from providers.fairness import Turns
from tests.simulators.receiver import Receiver
from tests.support.office import opened, post, until, working


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Callers' server."""
    with Receiver().running() as running:
        yield running


def some(connection: Connection, most: int, turns: Turns | None = None, spare: int = 0) -> list[WebhookMessage]:
    """Take so many."""
    return take(connection, most=most, at_once=2, busy={}, turns=turns, spare=spare)


async def test_in_turn(url: str | None, tmp_path: Path) -> None:
    """Of two keys neither is behind all that the other one has; a key's own messages keep their order."""
    async with opened(url, tmp_path) as database:
        for n in range(6):
            await post(database, f"https://a{n}.example/hook", key="a")
        for n in range(2):
            await post(database, f"https://b{n}.example/hook", key="b")
        taken = await database.write(lambda c: some(c, 5))
        assert [message.url.split(".")[0][8:] for message in taken] == ["a0", "b0", "a1", "b1", "a2"]
        assert [message.url.split(".")[0][8:] for message in await database.write(lambda c: some(c, 5))] == [
            "a3", "a4", "a5",
        ]  # fmt: skip


async def test_whoever_has_many_under_way_is_behind(url: str | None, tmp_path: Path) -> None:
    """What is under way counts, and so does who was served last."""
    turns = Turns()
    for key in "aab":
        turns.begin(key)
    turns.end("a")
    async with opened(url, tmp_path) as database:
        for key in "abc":
            for n in range(2):
                await post(database, f"https://{key}{n}.example/hook", key=key)
        taken = await database.write(lambda c: some(c, 4, turns))
        assert [message.key for message in taken] == ["c", "a", "b", "c"]


async def test_room_to_spare(url: str | None, tmp_path: Path) -> None:
    """Where all places are taken, keys that have none under way have a few more."""
    turns = Turns()
    turns.begin("a")
    async with opened(url, tmp_path) as database:
        for key in "abc":
            for n in range(2):
                await post(database, f"https://{key}{n}.example/hook", key=key)
        assert [message.key for message in await database.write(lambda c: some(c, 0, turns, spare=3))] == ["b", "c"]
        assert await database.write(lambda c: some(c, -3, Turns(), spare=3)) == []


async def test_the_same_receiver(url: str | None, tmp_path: Path) -> None:
    """A receiver that many keys have is no one's alone."""
    async with opened(url, tmp_path) as database:
        await post(database, "https://hooks.example/a", key="a", count=30)
        await post(database, "https://hooks.example/b", key="b", count=3)
        taken = await database.write(lambda c: some(c, 16))
        assert Counter(message.key for message in taken) == {"a": 2, "b": 2}


async def test_other_keys_messages_are_not_read(tmp_path: Path) -> None:
    """The look for one place reads as many messages as there are places, whatever waits."""
    plans: dict[str, str] = {}

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split()[0] in ("SELECT", "UPDATE", "WITH"):
            found = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans[statement] = " ".join(row[3] for row in found)

    async with opened(None, tmp_path) as database:
        await post(database, "https://a.example/hook", key="a", count=50)
        event.listen(database._writer, "before_cursor_execute", explain)
        assert len(await database.write(lambda c: some(c, 1))) == 1
    keys, due = (plan for sql, plan in plans.items() if sql.split()[0] != "UPDATE")
    assert keys.count("SEARCH deliveries USING COVERING INDEX deliveries_by_key") == 2
    assert "deliveries USING INDEX deliveries_by_key (state=? AND key=? AND next_at<?)" in due
    assert "TEMP B-TREE" not in due


class Silent:
    """So many servers that take messages and never answer. `heard` is how many came."""

    def __init__(self, origins: Sequence[str]) -> None:
        self.origins = origins
        self.heard = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, count: int) -> AsyncIterator[Silent]:
        """Listen until the block ends."""
        made = cls([])

        async def take_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            made.heard += 1
            await reader.read()
            writer.close()

        async with AsyncExitStack() as stack:
            servers = [
                await stack.enter_async_context(await asyncio.start_server(take_it, "127.0.0.1", 0))
                for _ in range(count)
            ]
            made.origins = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
            yield made


async def test_slow_receivers_of_another_key(receiver: Receiver, tmp_path: Path) -> None:
    """A message is sent at once though another key's slow receivers have every place that this one could have."""
    async with Silent.running(AT_ONCE + 4) as silent, opened(None, tmp_path) as database:
        for origin in silent.origins:
            await post(database, f"http://{origin}/hook", key="much", count=2)
        async with working(database, receiver.origin, *silent.origins, leave_s=0.0) as messages_ready:
            await until(lambda: silent.heard == AT_ONCE)
            for _ in range(3):
                await post(database, f"{receiver.url}/hook", key="little")
                messages_ready.set()
            await until(lambda: len(receiver.at("/hook")) == 3)
            assert silent.heard == AT_ONCE


def test_messages_from_before(tmp_path: Path) -> None:
    """A database of the version before learns whose its messages are."""
    engine = open_engine(None, tmp_path, writes=True)
    migrate(engine)
    _as_before(engine)
    migrate(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT key FROM deliveries")).scalar_one() == "key_a"
    engine.dispose()


def _as_before(engine: Engine) -> None:
    values: dict[str, object] = {"id": "m", "job": "j", "url": "u", "event": "e", "body": "", "state": "pending"}
    job = {"id": "j", "key": "key_a", "fingerprint": "f", "model": "m", "mode": "plain", "state": "completed"}
    with engine.begin() as connection:
        names = [column for column in connection.execute(text("PRAGMA table_info(jobs)")).all() if column[3]]
        given = {column[1]: job.get(column[1], 0) for column in names}
        connection.execute(
            text(f"INSERT INTO jobs ({', '.join(given)}) VALUES ({', '.join(f':{name}' for name in given)})"), given
        )
        connection.execute(insert(DELIVERIES).values(tries=0, created_at=0.0, next_at=0.0, **values))
        connection.execute(text("DROP INDEX deliveries_by_key"))
        connection.execute(text("ALTER TABLE deliveries DROP COLUMN key"))
        connection.execute(text("CREATE INDEX deliveries_by_time ON deliveries (state, next_at)"))
        connection.execute(text("ALTER TABLE jobs DROP COLUMN kills"))
        connection.execute(text("ALTER TABLE jobs DROP COLUMN retry"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'v0003'"))
