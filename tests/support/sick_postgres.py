"""A ledger in a real Postgres that falls ill: it goes read-only, its connections are killed, a right is revoked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from tests.support.postgres import Postgres
from tests.support.running import until

Illness: TypeAlias = "Callable[[Postgres, str], AbstractContextManager[None]]"
ROLE = "darkroom_app"


def ledger_for_role(server: Postgres, name: str) -> str:
    """The address of a new ledger for a role that is no superuser, with every right that it needs."""
    engine = open_engine(server.fresh(name), Path(), writes=True)
    migrate(engine)
    engine.dispose()
    _execute(
        server,
        name,
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE} LOGIN; "
        "END IF; END $$",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}",
    )
    return f"{server.url.rpartition('/')[0].replace('darkroom@', f'{ROLE}@')}/{name}"


@contextmanager
def read_only(server: Postgres, name: str) -> Iterator[None]:
    """Let every transaction be read-only from now on, also over connections that are open."""
    _reload(server, name, "ALTER SYSTEM SET default_transaction_read_only = on", "on")
    try:
        yield
    finally:
        _reload(server, name, "ALTER SYSTEM RESET default_transaction_read_only", "off")


def _reload(server: Postgres, name: str, statement: str, expected: str) -> None:
    """Change a setting, and wait until the server's processes have heard of it: they are told one after another."""
    import psycopg

    address = f"{server.url.rpartition('/')[0]}/{name}"

    def heard(connection: psycopg.Connection[tuple[str]]) -> bool:
        row = connection.execute(b"SHOW default_transaction_read_only").fetchone()
        return row is not None and row[0] == expected

    def heard_by_a_new_one() -> bool:
        with psycopg.connect(address, autocommit=True) as connection:
            return heard(connection)

    with psycopg.connect(address, autocommit=True) as before:
        _execute(server, name, statement, "SELECT pg_reload_conf()")
        until(lambda: heard(before) and heard_by_a_new_one(), "the server has read its settings")


@contextmanager
def revoked(server: Postgres, name: str) -> Iterator[None]:
    """Take the right away to change what is written of jobs and attempts."""
    _execute(server, name, f"REVOKE UPDATE, INSERT ON jobs, attempts FROM {ROLE}")
    try:
        yield
    finally:
        _execute(server, name, f"GRANT UPDATE, INSERT ON jobs, attempts TO {ROLE}")


@contextmanager
def killed(server: Postgres, name: str) -> Iterator[None]:
    """End every connection of the role, over and over."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.01):
            _execute(server, name, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


ILLNESSES: Mapping[str, Illness] = {"read-only": read_only, "revoked": revoked, "killed": killed}


def _execute(server: Postgres, name: str, *statements: str) -> None:
    import psycopg

    address = f"{server.url.rpartition('/')[0]}/{name}"
    with psycopg.connect(address, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        for statement in statements:
            connection.execute(statement.encode())
