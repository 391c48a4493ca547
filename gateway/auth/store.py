"""The register of keys in the ledger's database, as SQL over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from gateway.auth.keys import ApiKey, Budget
from gateway.database.schema import KEYS, SPENDING

_SPENT = select(SPENDING.c.spent).where(SPENDING.c.key == bindparam("of_key"), SPENDING.c.period == bindparam("of"))


def add(connection: Connection, grant: ApiKey) -> None:
    """Enter a new key."""
    connection.execute(
        insert(KEYS).values(
            id=grant.id,
            name=grant.name,
            digest=grant.digest.hex(),
            admin=grant.admin,
            models=_listed(grant.models),
            providers=_listed(grant.providers),
            rpm=grant.rpm,
            concurrency=grant.concurrency,
            budget=grant.budget.limit if grant.budget else None,
            budget_every=grant.budget.every if grant.budget else None,
            created_at=grant.created_at,
            expires_at=grant.expires_at,
        )
    )


def find(connection: Connection, key: str) -> ApiKey | None:
    """A key by its id."""
    row = connection.execute(select(KEYS).where(KEYS.c.id == key)).first()
    return _grant(row) if row else None


def every(connection: Connection) -> list[ApiKey]:
    """All keys, the newest first, with those that were revoked."""
    rows = connection.execute(select(KEYS).order_by(KEYS.c.created_at.desc(), KEYS.c.id))
    return [_grant(row) for row in rows]


def any_in_force(connection: Connection) -> bool:
    """Whether there is a key that was not revoked. One that has expired counts: no time that passes lets anybody in."""
    return connection.execute(select(KEYS.c.id).where(KEYS.c.revoked_at.is_(None)).limit(1)).first() is not None


def change(connection: Connection, grant: ApiKey) -> None:
    """Write down what a key may from now on. Its name, its id and the key itself stay."""
    old = find(connection, grant.id)
    connection.execute(
        update(KEYS)
        .where(KEYS.c.id == grant.id)
        .values(
            models=_listed(grant.models),
            providers=_listed(grant.providers),
            rpm=grant.rpm,
            concurrency=grant.concurrency,
            budget=grant.budget.limit if grant.budget else None,
            budget_every=grant.budget.every if grant.budget else None,
            expires_at=grant.expires_at,
        )
    )
    if old is not None and _every(old) != _every(grant):
        # Accounts of other periods know nothing of what is spent meanwhile: they are counted anew from the jobs.
        connection.execute(delete(SPENDING).where(SPENDING.c.key == grant.id))


def _every(grant: ApiKey) -> str | None:
    return grant.budget.every if grant.budget else None


def revoke(connection: Connection, key: str, at: float) -> bool:
    """Revoke a key; false where there is none with this id. Doing it again changes nothing."""
    there = update(KEYS).where(KEYS.c.id == key, KEYS.c.revoked_at.is_(None)).values(revoked_at=at)
    return bool(connection.execute(there).rowcount) or find(connection, key) is not None


def spent_in(connection: Connection, key: str, period: str) -> int | None:
    """What a key has spent in a period, by the period's name, with what is held for jobs that go on: micro-dollars.

    None where the period has no account yet.
    """
    found: int | None = connection.execute(_SPENT, {"of_key": key, "of": period}).scalar()
    return found


def told(connection: Connection, key: str, now: float) -> tuple[ApiKey, int] | None:
    """A key by its id, with what it has spent in its budget's period, in micro-dollars."""
    grant = find(connection, key)
    return None if grant is None else (grant, _spent_now(connection, grant, now))


def all_told(connection: Connection, now: float) -> list[tuple[ApiKey, int]]:
    """Every key, the newest first, with what it has spent."""
    return [(grant, _spent_now(connection, grant, now)) for grant in every(connection)]


def _spent_now(connection: Connection, grant: ApiKey, now: float) -> int:
    return (spent_in(connection, grant.id, grant.budget.period(now).name) or 0) if grant.budget else 0


def _listed(names: frozenset[str] | None) -> Sequence[str] | None:
    return None if names is None else sorted(names)


def _grant(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        admin=row.admin,
        models=None if row.models is None else frozenset(row.models),
        providers=None if row.providers is None else frozenset(row.providers),
        rpm=row.rpm,
        concurrency=row.concurrency,
        budget=None if row.budget is None else Budget(limit=row.budget, every=row.budget_every),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        digest=bytes.fromhex(row.digest),
    )
