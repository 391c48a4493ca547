"""One Postgres for the whole session, with a database of its own for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from tests.support.postgres import Postgres, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A Postgres. Whoever stops it starts it again."""
    with postgres() as running:
        yield running


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The address of a new database in it, without anything."""
    with _database(postgres_server, "template1") as url:
        yield url


@pytest.fixture(scope="session")
def _postgres_ledger(postgres_server: Postgres) -> str:
    """The name of a database at the schema of this version."""
    name = "at_this_version"
    engine = open_engine(postgres_server.fresh(name), Path(), writes=True)
    migrate(engine)
    engine.dispose()
    return name


@pytest.fixture
def postgres_ledger(postgres_server: Postgres, _postgres_ledger: str) -> Iterator[str]:
    """The address of a new, empty ledger in it."""
    with _database(postgres_server, _postgres_ledger) as url:
        yield url


@contextmanager
def _database(server: Postgres, like: str) -> Iterator[str]:
    """A database like another one, for one test: a few hundred of them would keep the disk busy at the end."""
    import psycopg

    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}"')
    try:
        yield f"{server.url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
