"""Migrations on both databases: whoever starts finds the schema of this version, or is told why not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, insert, inspect, select, text

from gateway.database.engine import open_engine
from gateway.database.migrate import _LOCK, HEAD, NewerSchema, migrate, version
from gateway.database.schema import METADATA, SECRETS
from tests.support.running import until

TOGETHER = 8


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A writing engine over an empty database."""
    opened = open_engine(url, Path(), writes=True)
    yield opened
    opened.dispose()


def found(engine: Engine) -> str | None:
    """The migration that a database is at."""
    with engine.begin() as connection:
        return version(connection)


def differences(engine: Engine) -> list[Any]:
    """What a database has otherwise than the schema."""
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differing: list[Any] = compare_metadata(context, METADATA)
        return differing


def test_an_empty_database_is_brought_to_the_schema(engine: Engine) -> None:
    """The migrations give exactly the tables, columns and indexes that the schema names."""
    assert found(engine) is None
    migrate(engine)

    assert found(engine) == HEAD
    assert differences(engine) == []
    assert set(inspect(engine).get_table_names()) == {*METADATA.tables, "alembic_version"}


def test_again_changes_nothing(engine: Engine) -> None:
    """A second start keeps what is there."""
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(insert(SECRETS).values(name="kept", value="v"))
    migrate(engine)

    assert found(engine) == HEAD
    with engine.begin() as connection:
        assert connection.execute(select(SECRETS.c.value)).scalar_one() == "v"


def test_many_at_once(url: str, engine: Engine) -> None:
    """Of eight that start in the same instant each finds the schema there when it goes on."""
    start = Barrier(TOGETHER)

    def begin(_: int) -> str | None:
        own = open_engine(url, Path(), writes=True)
        try:
            start.wait()
            migrate(own)
            return found(own)
        finally:
            own.dispose()

    with ThreadPoolExecutor(TOGETHER) as pool:
        assert list(pool.map(begin, range(TOGETHER))) == [HEAD] * TOGETHER
    assert differences(engine) == []


@pytest.mark.system
def test_one_waits_for_another(postgres_url: str) -> None:
    """Over a Postgres, whose tables several could make at once, whoever comes second waits for the first."""
    engine = open_engine(postgres_url, Path(), writes=True)
    other = create_engine(engine.url)
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    try:
        with ThreadPoolExecutor(1) as pool:
            with other.begin() as first:
                first.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                second = pool.submit(migrate, engine)
                until(lambda: first.execute(waiting).scalar() == 1, "it waits", 5)
                assert version(first) is None
            second.result()
        assert found(engine) == HEAD
    finally:
        engine.dispose()
        other.dispose()


def test_a_newer_database_is_left_alone(engine: Engine) -> None:
    """A database at a migration that is unknown here is refused, and stays at it."""
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    with pytest.raises(NewerSchema):
        migrate(engine)

    assert found(engine) == "v9999"
    assert differences(engine) == []
