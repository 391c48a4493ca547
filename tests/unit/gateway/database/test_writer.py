"""The writer: order, shared commits, operations that fail alone, and a database that is away for a while."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select

from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from gateway.database.schema import SECRETS
from gateway.database.writer import Database, LedgerDown
from tests.support.postgres import Postgres


def opened(url: str) -> Database:
    """A database at the schema of this version."""
    writer = open_engine(url, Path(), writes=True)
    migrate(writer)
    return Database(writer, open_engine(url, Path(), writes=False))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """An empty database with its writer."""
    made = opened(url)
    yield made
    await made.aclose()


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Database]:
    """The same, on SQLite only."""
    made = opened(f"sqlite:///{tmp_path / 'one.db'}")
    yield made
    await made.aclose()


def put(name: object) -> Callable[[Connection], Any]:
    """An operation that writes a row, and gives how many there were before it."""

    def run(connection: Connection) -> int:
        before = len(connection.execute(select(SECRETS)).all())
        connection.execute(insert(SECRETS).values(name=str(name), value=str(before)))
        return before

    return run


async def rows(database: Database) -> list[str]:
    """The names in the order in which they were written."""
    read = select(SECRETS.c.name, SECRETS.c.value)
    found = await database.read(lambda connection: connection.execute(read).all())
    return [row.name for row in sorted(found, key=lambda row: int(row.value))]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def refuse(database: Database, word: str) -> None:
    """Let the embedded database refuse every write with ON, and take them again with OFF."""
    connection = database._writer.raw_connection()
    connection.cursor().execute(f"PRAGMA query_only={word}")
    connection.close()


async def reservation(database: Database) -> tuple[asyncio.Task[Any], threading.Event]:
    """Keep the writer busy, so that what is asked for meanwhile gathers."""
    begun, go = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        begun.set()
        go.wait(20)

    task = asyncio.create_task(database.write(wait))
    await asyncio.to_thread(begun.wait, 20)
    return task, go


async def test_order_is_kept(database: Database) -> None:
    """Writes happen in the order in which they were asked for, those that nobody waits for among them."""
    waiting = []
    for number in range(200):
        if number % 3:
            waiting.append(asyncio.create_task(database.write(put(number))))
            await asyncio.sleep(0)
        else:
            database.write_behind(put(number))

    assert await asyncio.gather(*waiting) == [number for number in range(200) if number % 3]
    assert await rows(database) == [str(number) for number in range(200)]


async def test_what_gathers_shares_a_commit(database: Database) -> None:
    """Sixty writes that came during one commit are one commit more."""
    commits: list[Connection] = []
    event.listen(database._writer, "commit", commits.append)
    busy, go = await reservation(database)
    writes = [asyncio.create_task(database.write(put(number))) for number in range(60)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(busy, *writes)

    assert len(await rows(database)) == 60
    assert len(commits) == 2


@pytest.mark.parametrize("by", ["itself", "database"])
async def test_one_that_fails_fails_alone(database: Database, by: str) -> None:
    """An operation that raises, or that the database refuses, changes nothing; those beside it are written."""

    class Own(Exception):
        pass

    def bad(connection: Connection) -> None:
        put("taken back")(connection)
        if by == "itself":
            raise Own
        put("first")(connection)

    busy, go = await reservation(database)
    writes = [asyncio.create_task(database.write(each)) for each in (put("first"), bad, put("last"))]
    await asyncio.sleep(0)
    go.set()
    await busy
    first, failed, last = await asyncio.gather(*writes, return_exceptions=True)

    assert (first, last) == (0, 1)
    assert type(failed).__name__ == ("Own" if by == "itself" else "IntegrityError")
    assert await rows(database) == ["first", "last"]
    assert database.up


async def test_a_database_that_refuses(embedded: Database) -> None:
    """Whoever waits hears of it and nothing is written; what nobody waits for is written once it can be, in order."""
    await asyncio.to_thread(refuse, embedded, "ON")
    for number in range(5):
        embedded.write_behind(put(number))
    with pytest.raises(LedgerDown):
        await embedded.write(put("refused"))
    embedded.write_behind(put(5))
    await until(lambda: len(embedded._owed) == 6, "all are owed")
    assert not embedded.up
    assert await rows(embedded) == []
    await asyncio.to_thread(refuse, embedded, "OFF")
    await until(lambda: embedded.up, "written after all")

    assert await embedded.write(put("after")) == 6
    assert await rows(embedded) == [*map(str, range(6)), "after"]


async def test_what_is_owed_comes_first(embedded: Database) -> None:
    """The first write after a failure comes after those that are owed."""
    await asyncio.to_thread(refuse, embedded, "ON")
    embedded.write_behind(put("owed"))
    await until(lambda: embedded._owed, "owed")
    await asyncio.to_thread(refuse, embedded, "OFF")

    assert await embedded.write(put("new")) == 1


async def test_a_closed_one(url: str) -> None:
    """The end writes what was asked for before it, and takes nothing after it."""
    made = opened(url)
    made.write_behind(put("last"))
    await made.aclose()
    with pytest.raises(LedgerDown):
        await made.write(put("late"))

    again = opened(url)
    assert await rows(again) == ["last"]
    await again.aclose()


@pytest.mark.system
async def test_a_server_that_is_away(postgres_server: Postgres, postgres_url: str) -> None:
    """While a Postgres is stopped nothing can be written or read; when it is back everything can, the owed first."""
    made = opened(postgres_url)
    try:
        await made.write(put("before"))
        await asyncio.to_thread(postgres_server.stop)
        try:
            with pytest.raises(LedgerDown):
                await made.write(put("refused"))
            with pytest.raises(LedgerDown):
                await rows(made)
            made.write_behind(put("owed"))
            assert not made.up
        finally:
            await asyncio.to_thread(postgres_server.start)
        assert await made.write(put("after")) == 2
        await until(lambda: made.up, "seen to be up")
        assert await rows(made) == ["before", "owed", "after"]
    finally:
        await made.aclose()


@pytest.mark.system
async def test_a_server_that_was_away_unseen(postgres_server: Postgres, postgres_url: str) -> None:
    """A Postgres that was restarted while nobody asked for anything costs nobody a call."""
    made = opened(postgres_url)
    try:
        await made.write(put("before"))
        assert await rows(made) == ["before"]
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.to_thread(postgres_server.start)
        assert await rows(made) == ["before"]
        assert await made.write(put("after")) == 1
    finally:
        await made.aclose()
