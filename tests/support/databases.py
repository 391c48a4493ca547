"""Databases for tests: one Postgres for the whole session, and empty ledgers that need no migration any more."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.database.engine import FILE, open_engine
from gateway.database.migrate import migrate
from tests.support.postgres import Postgres, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A Postgres. Whoever stops it starts it again."""
    with postgres() as running:
        yield running


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """The address of a new database in it, without anything."""
    return postgres_server.fresh(f"t_{secrets.token_hex(6)}")


@pytest.fixture(scope="session")
def _postgres_ledger(postgres_server: Postgres) -> str:
    """The name of a database at the schema of this version."""
    name = "at_this_version"
    engine = open_engine(postgres_server.fresh(name), Path(), writes=True)
    migrate(engine)
    engine.dispose()
    return name


@pytest.fixture
def postgres_ledger(postgres_server: Postgres, _postgres_ledger: str) -> str:
    """The address of a new, empty ledger in it."""
    import psycopg

    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_postgres_ledger}"')
    return f"{postgres_server.url.rpartition('/')[0]}/{name}"


def put_ledger(folder: Path) -> None:
    """Put an empty ledger into a data folder that has none: migrating one takes longer than most tests of it."""
    file = folder / FILE
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_ledger())


@cache
def _ledger() -> bytes:
    with TemporaryDirectory() as name:
        engine = open_engine(None, Path(name), writes=True)
        migrate(engine)
        engine.dispose()
        return (Path(name) / FILE).read_bytes()
