"""Engines: how SQLite and Postgres are opened, so that one transaction means the same on both."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, func, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

from gateway.settings.errors import ConfigError, ConfigProblem

_BUSY_MS = 5000
_CONNECT_S = 5
# What a sick server may hold a statement up for before the ledger counts as down.
_STATEMENT_MS = 10_000
# A process that is paused in the middle of a transaction holds locks, and all others wait for it: the server takes
# them from it after so long.
_IDLE_MS = 5_000
FILE = "darkroom.db"


def open_engine(url: str | None, data: Path, *, writes: bool) -> Engine:
    """The engine for `url`, or for the embedded database in the data folder. Connects to nothing yet.

    With `writes` each transaction takes the write lock as it begins, and two never find out late that they collide.
    Raises ConfigError for an address that is none.
    """
    if url is None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _sqlite(data / FILE, writes=writes)
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _not_taken() from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return _sqlite(Path(parsed.database), writes=writes)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise _not_taken()
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=1 if writes else 4,
        max_overflow=0,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_timeout=_CONNECT_S,
        connect_args={
            "connect_timeout": _CONNECT_S,
            "options": f"-c statement_timeout={_STATEMENT_MS} -c idle_in_transaction_session_timeout={_IDLE_MS}",
        },
    )


def is_embedded(engine: Engine) -> bool:
    """Whether the database is a file of this machine."""
    return engine.dialect.name == "sqlite"


def database_time(connection: Connection, clock: Callable[[], float] = time.time) -> float:
    """The time in seconds since the epoch that all processes share: on other machines clocks may differ.

    `clock` is this machine's, and that of its embedded database.
    """
    if connection.dialect.name == "sqlite":
        return clock()
    return float(connection.execute(select(func.extract("epoch", text("clock_timestamp()")))).scalar_one())


def insert_new(connection: Connection, table: Table) -> Insert:
    """An insert that does nothing where there is such a row already: two processes at once are told apart by that."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def _sqlite(path: Path, *, writes: bool) -> Engine:
    # Hidden from messages and logs: there are prompts among the parameters.
    engine = create_engine(f"sqlite:///{path}", pool_size=1 if writes else 4, max_overflow=0, hide_parameters=True)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: Any) -> None:
        # The driver's own idea of when a transaction begins is too late; the listener below says it.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        _switch_to_wal(connection)
        for pragma in (
            # NORMAL may lose the last commits with the power: these are about money.
            "synchronous=FULL",
            "foreign_keys=ON",
            # What is deleted, a prompt for one, is overwritten.
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Have the file written ahead. SQLite does not wait for others who switch a new file in the same instant."""
    end = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _not_taken() -> ConfigError:
    expected = "an address such as postgresql://user:password@host/database"
    return ConfigError(
        [ConfigProblem("gateway.toml", "gateway.ledger_url", "an address of no database known here", expected)]
    )
