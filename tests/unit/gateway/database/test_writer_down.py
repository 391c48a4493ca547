"""The writer over a database that is ill: nobody is told anything but that it is down, and nothing owed is dropped."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import NoResultFound

from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from gateway.database.writer import Database, LedgerDown
from tests.support.postgres import Postgres, postgres
from tests.support.sick_postgres import killed, ledger_for_role, read_only
from tests.unit.gateway.database.test_writer import put, refuse, rows, until


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty embedded database with its writer, which does not wait for what cannot be written at its end."""
    writer = open_engine(None, tmp_path, writes=True)
    migrate(writer)
    made = Database(writer, open_engine(None, tmp_path, writes=False), flush_s=0.0)
    yield made
    await made.aclose()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A Postgres of its own: what makes it ill is for all of its databases."""
    with postgres() as running:
        yield running


@contextmanager
def spoilt(folder: Path) -> Iterator[None]:
    """Overwrite the database's files, as a bad disk does, and bring back what was in them."""
    files = {path: path.read_bytes() for path in folder.glob("darkroom.db*")}
    for path in files:
        path.write_bytes(b"\xff" * 65_536)
    try:
        yield
    finally:
        for path, data in files.items():
            path.write_bytes(data)


async def test_a_spoilt_file(tmp_path: Path) -> None:
    """A file that is no database any more is a ledger that is down, for who writes, reads and for what is owed."""
    first = Database(*(open_engine(None, tmp_path, writes=writes) for writes in (True, False)), flush_s=0.0)
    await asyncio.to_thread(migrate, first._writer)
    await first.write(put("before"))
    await first.aclose()
    made = Database(*(open_engine(None, tmp_path, writes=writes) for writes in (True, False)), flush_s=0.0)
    try:
        with spoilt(tmp_path):
            with pytest.raises(LedgerDown):
                await made.write(put("refused"))
            with pytest.raises(LedgerDown):
                await rows(made)
            made.write_behind(put("owed"))
            await until(lambda: made._owed, "owed")
            assert not made.up
        await until(lambda: made.up, "written after all")
        assert await rows(made) == ["before", "owed"]
    finally:
        await made.aclose()


async def test_whatever_the_database_says_is_down(embedded: Database) -> None:
    """There is no list of errors that count: a table that is not there, a statement that is wrong, no row at all."""

    def missing(connection: Connection) -> None:
        connection.execute(text("SELECT * FROM nothing_of_this_name"))

    def none(connection: Connection) -> None:
        raise NoResultFound

    for operation in (missing, none):
        with pytest.raises(LedgerDown):
            await embedded.write(operation)
        with pytest.raises(LedgerDown):
            await embedded.read(operation)


async def test_one_that_is_never_taken_holds_up_no_other(embedded: Database) -> None:
    """An owed write that the database refuses for good stays owed, and those after it are written in their order."""
    healed = False

    def never(connection: Connection) -> None:
        connection.execute(text("SELECT 1" if healed else "SELECT * FROM nothing_of_this_name"))

    embedded.write_behind(never)
    for number in range(100):
        embedded.write_behind(put(number))
    assert await embedded.write(put("waited for")) == 100
    assert await rows(embedded) == [*map(str, range(100)), "waited for"]
    assert len(embedded._owed) == 1
    assert not embedded.up
    healed = True
    await until(lambda: embedded.up, "in the end")


async def test_a_fault_of_the_writer_drops_nothing(embedded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the writing itself breaks, who waits is told, and what is owed is written by the next round."""
    whole = embedded._commit

    def broken(batch: object) -> None:
        monkeypatch.setattr(embedded, "_commit", whole)
        raise RuntimeError("a bug")

    monkeypatch.setattr(embedded, "_commit", broken)
    embedded.write_behind(put("owed"))
    await until(lambda: embedded._commit == whole, "it broke")
    # Writes are made in their order.
    await embedded.write(put("after it"))
    assert await rows(embedded) == ["owed", "after it"]
    monkeypatch.setattr(embedded, "_commit", broken)
    with pytest.raises(LedgerDown):
        await embedded.write(put("told"))
    assert await rows(embedded) == ["owed", "after it"]


async def test_what_is_given_up_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process that ends while nothing can be written says how much it could not write, and ends in its time."""
    made = Database(*(open_engine(None, tmp_path, writes=writes) for writes in (True, False)), flush_s=0.0)
    await asyncio.to_thread(migrate, made._writer)
    await asyncio.to_thread(refuse, made, "ON")
    for number in range(5):
        made.write_behind(put(number))
    await until(lambda: len(made._owed) == 5, "owed")
    with caplog.at_level(logging.ERROR):
        await made.aclose()

    [lost] = [record for record in caplog.records if record.message == "ledger.lost"]
    assert lost.__dict__["fields"] == {"writes": 5}
    with pytest.raises(LedgerDown):
        await made.write(put("late"))


@pytest.mark.system
async def test_a_server_that_turns_read_only(server: Postgres) -> None:
    """A Postgres that goes read-only takes nothing and gives everything; what is owed is written once it may be."""
    name = f"t_{secrets.token_hex(4)}"
    url = await asyncio.to_thread(ledger_for_role, server, name)
    made = Database(*(open_engine(url, Path(), writes=writes) for writes in (True, False)))
    try:
        await made.write(put("before"))
        with read_only(server, name):
            made.write_behind(put("owed"))
            with pytest.raises(LedgerDown):
                await made.write(put("refused"))
            assert not made.up
            assert await rows(made) == ["before"]
        await until(lambda: made.up, "well again")
        assert await rows(made) == ["before", "owed"]
    finally:
        await made.aclose()


@pytest.mark.system
async def test_connections_that_are_killed(server: Postgres) -> None:
    """However often its connections are killed, a write is made or its caller is told; none is made twice."""
    name = f"t_{secrets.token_hex(4)}"
    url = await asyncio.to_thread(ledger_for_role, server, name)
    made = Database(*(open_engine(url, Path(), writes=writes) for writes in (True, False)))
    told: list[str] = []
    try:
        with killed(server, name):
            for number in range(30):
                try:
                    await made.write(put(f"waited {number}"))
                    told.append(f"waited {number}")
                except LedgerDown:
                    pass
                made.write_behind(put(f"owed {number}"))
        # Writes are made in their order: this one is the last.
        number = 0
        while "the last" not in await rows(made):
            number += 1
            assert number < 100
            with suppress(LedgerDown):
                await made.write(put("the last"))
        found = await rows(made)
        assert len(found) == len(set(found))
        assert set(told) <= set(found)
        assert {f"owed {number}" for number in range(30)} <= set(found)
    finally:
        await made.aclose()
