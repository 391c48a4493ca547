"""Brings a database to the schema of this version, once among all who start at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from gateway.database.engine import is_embedded

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
