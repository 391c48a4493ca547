"""Migrations, run once even if several processes start together, and the schema check of the commands."""

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
"""The latest migration of this version."""

_FOLDER = Path(__file__).parent / "migrations"
# An arbitrary number shared by all processes: the Postgres advisory lock held while migrating.
_LOCK = 7_209_118_451
# alembic keeps its state in module globals, so only one thread may use it.
_ONE_AT_A_TIME = threading.Lock()


def migrate(engine: Engine) -> None:
    """Run the missing migrations. Raises the database's errors, and NewerSchema."""
    with engine.begin() as connection:
        # With SQLite the transaction already holds the write lock.
        if not is_embedded(engine):
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if version(connection) != HEAD:
            _upgrade(connection)


def version(connection: Connection) -> str | None:
    """The current migration of a database; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    # Imported on demand: it takes longer than everything else at startup.
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
        raise NewerSchema("the database was created by a newer version of Darkroom") from error


class NewerSchema(Exception):
    """The database has a migration that this version does not know."""


_BUSY_S = 10.0


@contextmanager
def opened(url: str | None, data: Path, *, writes: bool = False) -> Iterator[Engine]:
    """An engine for an existing ledger; read-only without `writes`. Nothing is created or migrated.

    Raises ConfigError if there is no ledger that this version can read, or if it fails.
    """
    where = "gateway.ledger_url" if url is not None else "DARKROOM_DATA"
    engine = _engine(url, data, where, writes=writes)
    try:
        with engine.begin() as connection:
            _check(connection, where)
        yield engine
    except SQLAlchemyError as error:
        # Only the error's class: the message may contain the address with its password.
        found = f"an unusable database ({type(error).__name__})"
        raise ConfigError([ConfigProblem("the ledger", where, found, "the ledger of a gateway")]) from error
    finally:
        engine.dispose()


def _engine(url: str | None, data: Path, where: str, *, writes: bool) -> Engine:
    path = data / FILE if url is None else _file(url)
    if path is not None and not path.is_file():
        raise ConfigError(
            [ConfigProblem("the ledger", where, f"no file {path}", "the ledger that `darkroom serve` creates")]
        )
    try:
        engine = open_engine(url, data, writes=writes)
    except ModuleNotFoundError as error:
        expected = "the extra `postgres`: pip install '.[postgres]' in the checkout"
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
    """The file named by an address; None if it is not a file's."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        return None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _check(connection: Connection, where: str) -> None:
    current = version(connection)
    if current == HEAD:
        return
    found = "no ledger" if current is None else f"a ledger of another version of Darkroom ({current})"
    expected = f"version {HEAD}: run `darkroom serve` of this version to migrate it, unless a newer version created it"
    raise ConfigError([ConfigProblem("the ledger", where, found, expected)])
