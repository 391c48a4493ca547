"""The register of keys in the ledger's database, as SQL over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from gateway.auth.keys import ApiKey, Budget
from gateway.database.schema import KEYS, SPENDING

_SPENT = select(SPENDING.c.spent).where(SPENDING.c.key == bindparam("of_key"), SPENDING.c.period == bindparam("of"))


def add(connection: Connection, api_key: ApiKey) -> None:
    """Enter a new key."""
    connection.execute(
        insert(KEYS).values(
            id=api_key.id,
            name=api_key.name,
            digest=api_key.digest.hex(),
            admin=api_key.admin,
            models=_listed(api_key.models),
            providers=_listed(api_key.providers),
            rpm=api_key.rpm,
            concurrency=api_key.concurrency,
            budget=api_key.budget.limit if api_key.budget else None,
            budget_every=api_key.budget.every if api_key.budget else None,
            created_at=api_key.created_at,
            expires_at=api_key.expires_at,
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


def change(connection: Connection, api_key: ApiKey) -> None:
    """Write down what a key may from now on. Its name, its id and the key itself stay."""
    old = find(connection, api_key.id)
    connection.execute(
        update(KEYS)
        .where(KEYS.c.id == api_key.id)
        .values(
            models=_listed(api_key.models),
            providers=_listed(api_key.providers),
            rpm=api_key.rpm,
            concurrency=api_key.concurrency,
            budget=api_key.budget.limit if api_key.budget else None,
            budget_every=api_key.budget.every if api_key.budget else None,
            expires_at=api_key.expires_at,
        )
    )
    if old is not None and _every(old) != _every(api_key):
        # Accounts of other periods know nothing of what is spent meanwhile: they are counted anew from the jobs.
        connection.execute(delete(SPENDING).where(SPENDING.c.key == api_key.id))


def _every(api_key: ApiKey) -> str | None:
    return api_key.budget.every if api_key.budget else None


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
    api_key = find(connection, key)
    return None if api_key is None else (api_key, _spent_now(connection, api_key, now))


def all_told(connection: Connection, now: float) -> list[tuple[ApiKey, int]]:
    """Every key, the newest first, with what it has spent."""
    return [(api_key, _spent_now(connection, api_key, now)) for api_key in every(connection)]


def _spent_now(connection: Connection, api_key: ApiKey, now: float) -> int:
    return (spent_in(connection, api_key.id, api_key.budget.period(now).name) or 0) if api_key.budget else 0


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
