"""Stored API keys, in the ledger's database: functions over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from gateway.auth.keys import ApiKey, Budget
from gateway.database.schema import KEYS, SPENDING

_SPENT = select(SPENDING.c.spent).where(SPENDING.c.key == bindparam("of_key"), SPENDING.c.period == bindparam("of"))


def add(connection: Connection, api_key: ApiKey) -> None:
    """Store a new key."""
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
    return _api_key(row) if row else None


def every(connection: Connection) -> list[ApiKey]:
    """All keys, including revoked ones, the newest first."""
    rows = connection.execute(select(KEYS).order_by(KEYS.c.created_at.desc(), KEYS.c.id))
    return [_api_key(row) for row in rows]


def any_in_force(connection: Connection) -> bool:
    """Whether a key exists that was not revoked. An expired key counts, so that access never opens by itself."""
    return connection.execute(select(KEYS.c.id).where(KEYS.c.revoked_at.is_(None)).limit(1)).first() is not None


def change(connection: Connection, api_key: ApiKey) -> None:
    """Store a key's new limits. Its id, name and secret do not change."""
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
        # Sums of the other periods would miss what is spent from now on: they are recomputed from the jobs.
        connection.execute(delete(SPENDING).where(SPENDING.c.key == api_key.id))


def _every(api_key: ApiKey) -> str | None:
    return api_key.budget.every if api_key.budget else None


def revoke(connection: Connection, key: str, at: float) -> bool:
    """Revoke a key; false if no key has this id. Idempotent."""
    statement = update(KEYS).where(KEYS.c.id == key, KEYS.c.revoked_at.is_(None)).values(revoked_at=at)
    return bool(connection.execute(statement).rowcount) or find(connection, key) is not None


def spent_in(connection: Connection, key: str, period: str) -> int | None:
    """What a key has spent in a period, including reservations for running jobs, in micro-dollars.

    None if the period has no entry yet.
    """
    spent: int | None = connection.execute(_SPENT, {"of_key": key, "of": period}).scalar()
    return spent


def with_spent(connection: Connection, key: str, now: float) -> tuple[ApiKey, int] | None:
    """A key by its id, with what it has spent in the current budget period, in micro-dollars."""
    api_key = find(connection, key)
    return None if api_key is None else (api_key, _spent_now(connection, api_key, now))


def all_with_spent(connection: Connection, now: float) -> list[tuple[ApiKey, int]]:
    """All keys, the newest first, with what each has spent."""
    return [(api_key, _spent_now(connection, api_key, now)) for api_key in every(connection)]


def _spent_now(connection: Connection, api_key: ApiKey, now: float) -> int:
    return (spent_in(connection, api_key.id, api_key.budget.period(now).name) or 0) if api_key.budget else 0


def _listed(names: frozenset[str] | None) -> Sequence[str] | None:
    return None if names is None else sorted(names)


def _api_key(row: Row[Any]) -> ApiKey:
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
