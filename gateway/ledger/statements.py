"""The ledger's statements of every call, built once: to build one costs several times what running it does.

`this` is the id of the row; what else is given is set.
"""

from __future__ import annotations

from sqlalchemy import Connection, Insert, Table, bindparam, func, insert, select, update

from gateway.database.engine import insert_new
from gateway.database.schema import ATTEMPTS, JOBS

JOB = select(JOBS).where(JOBS.c.id == bindparam("this"))
JOB_IS_THERE = select(JOBS.c.id).where(JOBS.c.id == bindparam("this"))
SET_JOB = update(JOBS).where(JOBS.c.id == bindparam("this"))
# Only where a process works on it, or has its caller.
SET_OWN_JOB = SET_JOB.where(JOBS.c.owner == bindparam("by"))
SET_AWAITED_JOB = SET_JOB.where(JOBS.c.caller == bindparam("by"))
# What its key's budget holds for it comes back. Without `reached` its progress stays as it is.
END_OWN_JOB = SET_OWN_JOB.values(progress=func.coalesce(bindparam("reached"), JOBS.c.progress)).returning(
    JOBS.c.charged, JOBS.c.charged_to
)
NEW_JOB = insert(JOBS)
ATTEMPT = select(ATTEMPTS).where(ATTEMPTS.c.id == bindparam("this"))
SET_ATTEMPT = update(ATTEMPTS).where(ATTEMPTS.c.id == bindparam("this"))
# Only where nothing is written of a picture that it made.
SET_UNMADE_ATTEMPT = SET_ATTEMPT.where(func.coalesce(ATTEMPTS.c.outcome, "") != "ok")
# Only where nobody else has said anything of it since it was sent.
SET_SENT_ATTEMPT = SET_ATTEMPT.where(ATTEMPTS.c.state == "submitting")

_UNLESS_THERE: dict[tuple[str, str], Insert] = {}


def unless_there(connection: Connection, table: Table) -> Insert:
    """An insert that gives the new row's id, and nothing where there is such a row already."""
    kind = connection.dialect.name, table.name
    if kind not in _UNLESS_THERE:
        # Postgres' driver does not count what was inserted.
        _UNLESS_THERE[kind] = insert_new(connection, table).returning(table.c.id)
    return _UNLESS_THERE[kind]
