"""Database engines: opens SQLite and Postgres so that transactions behave the same on both."""

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
# The time limit of a statement, after which the ledger counts as down.
_STATEMENT_MS = 10_000
# A process paused during a transaction holds locks that block all others: the server ends the transaction after this
# time.
_IDLE_MS = 5_000
FILE = "darkroom.db"


def open_engine(url: str | None, data: Path, *, writes: bool) -> Engine:
    """The engine for `url`, or for the embedded database in the data folder. Does not connect yet.

    With `writes`, each transaction takes the write lock when it begins, so that conflicts are never detected late.
    Raises ConfigError for an invalid address.
    """
    if url is None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _sqlite(data / FILE, writes=writes)
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _unsupported() from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return _sqlite(Path(parsed.database), writes=writes)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise _unsupported()
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
    """Whether the database is a file on this machine."""
    return engine.dialect.name == "sqlite"


def database_time(connection: Connection, clock: Callable[[], float] = time.time) -> float:
    """The database's time in seconds since the epoch, shared by all processes: clocks of machines may differ.

    `clock` is this machine's, used for an embedded database.
    """
    if connection.dialect.name == "sqlite":
        return clock()
    return float(connection.execute(select(func.extract("epoch", text("clock_timestamp()")))).scalar_one())


def insert_new(connection: Connection, table: Table) -> Insert:
    """An insert that does nothing if the row exists, so that one of several concurrent processes wins."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def _sqlite(path: Path, *, writes: bool) -> Engine:
    # Parameters are hidden from messages and logs, because they include prompts.
    engine = create_engine(f"sqlite:///{path}", pool_size=1 if writes else 4, max_overflow=0, hide_parameters=True)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: Any) -> None:
        # The driver would begin transactions too late; the listener below does it.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        _switch_to_wal(connection)
        for pragma in (
            # NORMAL may lose the last commits in a power failure, and these concern money.
            "synchronous=FULL",
            "foreign_keys=ON",
            # Deleted data, such as prompts, is overwritten.
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL mode. SQLite does not wait for other processes that do so at the same moment."""
    end = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _unsupported() -> ConfigError:
    expected = "an address such as postgresql://user:password@host/database"
    return ConfigError(
        [ConfigProblem("gateway.toml", "gateway.ledger_url", "an address of an unsupported database", expected)]
    )
