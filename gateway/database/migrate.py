"""Migrations, run once when several processes start together; commands need this version's schema."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from gateway.database.engine import FILE, is_embedded, open_engine
from gateway.settings.errors import ConfigError, ConfigProblem

HEAD = "v0006"
"""The migration that this version's schema is at."""

_FOLDER = Path(__file__).parent / "migrations"
# Any number, the same for all: who migrates a Postgres holds the advisory lock of it.
_LOCK = 7_209_118_451
# What alembic is doing it keeps in a module of its own: two threads would mix up theirs.
_ONE_AT_A_TIME = threading.Lock()


def migrate(engine: Engine) -> None:
    """Run the migrations that the database lacks. Raises what the database raises, and NewerSchema."""
    with engine.begin() as connection:
        # SQLite's own lock is held already, for the transaction began as a writing one.
        if not is_embedded(engine):
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if version(connection) != HEAD:
            _upgrade(connection)


def version(connection: Connection) -> str | None:
    """The migration that a database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    # Imported only where there is something to migrate: it takes longer than everything else at a start.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    try:
        with _ONE_AT_A_TIME:
            command.upgrade(config, HEAD)
    except CommandError as error:
        raise NewerSchema("the database is of another version of Darkroom than this one") from error


class NewerSchema(Exception):
    """The database is at a migration that this version does not know."""


_BUSY_S = 10.0


@contextmanager
def opened(url: str | None, data: Path, *, writes: bool = False) -> Iterator[Engine]:
    """An engine for the ledger that is there; without `writes` one that cannot change anything.

    Raises ConfigError where there is none that this version can read, or where it fails. Nothing is created, and
    nothing migrated.
    """
    where = "gateway.ledger_url" if url is not None else "DARKROOM_DATA"
    engine = _engine(url, data, where, writes=writes)
    try:
        with engine.begin() as connection:
            _check(connection, where)
        yield engine
    except SQLAlchemyError as error:
        # Only the kind: the message may have the address with its password.
        found = f"no database that can be used ({type(error).__name__})"
        raise ConfigError([ConfigProblem("the ledger", where, found, "the ledger of a gateway")]) from error
    finally:
        engine.dispose()


def _engine(url: str | None, data: Path, where: str, *, writes: bool) -> Engine:
    path = data / FILE if url is None else _file(url)
    if path is not None and not path.is_file():
        raise ConfigError(
            [ConfigProblem("the ledger", where, f"no file {path}", "the ledger that `darkroom serve` makes")]
        )
    try:
        engine = open_engine(url, data, writes=writes)
    except ModuleNotFoundError as error:
        expected = "the extra `postgres`: pip install 'darkroom[postgres]'"
        raise ConfigError([ConfigProblem("the ledger", where, "no driver for Postgres", expected)]) from error
    if not is_embedded(engine):
        return engine if writes else engine.execution_options(postgresql_readonly=True)
    if writes:
        return engine
    address = f"file:{quote(str(path))}?mode=ro"
    return create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(address, uri=True, timeout=_BUSY_S),
        poolclass=NullPool,
    )


def _file(url: str) -> Path | None:
    """The file that an address names; None where it is no file's."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        return None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _check(connection: Connection, where: str) -> None:
    found = version(connection)
    if found == HEAD:
        return
    what = "no ledger" if found is None else f"a ledger of another version of Darkroom ({found})"
    expected = f"one at {HEAD}: `darkroom serve` of this version brings it there, unless a newer one has been here"
    raise ConfigError([ConfigProblem("the ledger", where, what, expected)])
