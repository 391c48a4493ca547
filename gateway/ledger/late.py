"""Images that reach a process after another one has adopted their job: they are paid for, and are stored.

They are recorded with their attempts, so that the new owner finds them at the end of the job. If the job has already
ended as failed or with fewer images, its result is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, select, update

from gateway.auth.budgets import settle
from gateway.database.schema import ATTEMPTS, DELIVERIES, JOBS
from gateway.ledger.records import ENDED, AttemptRow, JobRow, Json, handle_to_json
from gateway.ledger.statements import (
    SET_ATTEMPT,
    SET_SENT_ATTEMPT,
    SET_UNMADE_ATTEMPT,
    attempt_of,
    attempt_values,
    job_of,
    messages,
    unless_there,
)
from normalization.values import JoinAlpha
from providers.base import Handle

# The columns that are known only when an attempt has ended.
_ENDS = ("model", "state", "outcome", "cost", "actual", "ended_at", "message", "notes", "files")


def taken(process: str, attempt: str, handle: Handle, at: float) -> Callable[[Connection], None]:
    """Return an operation that records, for a process, that a provider accepted an attempt."""
    values = {
        "this": attempt,
        "state": "submitted",
        "handle": handle_to_json(handle),
        "upstream_id": handle.id,
        "submitted_at": at,
    }

    def write(connection: Connection) -> None:
        if connection.execute(SET_SENT_ATTEMPT, values).rowcount:
            return
        if connection.execute(SET_UNMADE_ATTEMPT, values).rowcount:
            # Another process had abandoned the attempt, and perhaps the job, but the provider has accepted it.
            job = select(ATTEMPTS.c.job).where(ATTEMPTS.c.id == attempt).scalar_subquery()
            given_up = update(JOBS).where(JOBS.c.id == job, JOBS.c.state == "failed")
            connection.execute(given_up.values(state="in_progress", owner=process, error=None, ended_at=None))

    return write


def save(connection: Connection, attempt: AttemptRow, *, over: bool = True) -> None:
    """Write an attempt's end; insert an attempt that ended before anything was sent.

    The sent request and the handle stay while the outcome is unknown: the job may still be found. Images that another
    process has recorded are not replaced by an end without images; without `over` they are never replaced.
    """
    values = attempt_values(attempt)
    kept = {name: values[name] for name in _ENDS}
    if attempt.state == "ended":
        kept["sent"] = None
        if any(isinstance(step, JoinAlpha) for step in attempt.making.finish):
            kept["making"] = values["making"]  # without the alpha channel of the client's image
    statement = SET_ATTEMPT if over and attempt.outcome == "ok" else SET_UNMADE_ATTEMPT
    if not connection.execute(statement, {"this": attempt.id, **kept}).rowcount:
        connection.execute(unless_there(connection, ATTEMPTS), values)


def keep(connection: Connection, job: str, attempts: Sequence[AttemptRow], at: float) -> bool:
    """Record the images of these attempts for a job of another process; false if there are no images."""
    made = [attempt for attempt in attempts if attempt.outcome == "ok" and any(kept["file"] for kept in attempt.files)]
    for attempt in made:
        save(connection, attempt, over=False)
    if made:
        gather(connection, job, at)
    return bool(made)


def gather(connection: Connection, job: str, at: float) -> JobRow | None:
    """Replace the result of an ended job if its attempts have more images; return the new row, else None.

    A cancelled job stays cancelled, and a running one is left to its process.
    """
    row = connection.execute(select(JOBS).where(JOBS.c.id == job).with_for_update()).first()
    if row is None or row.state not in ENDED or row.state == "cancelled":
        return None
    every = select(ATTEMPTS).where(ATTEMPTS.c.job == job).order_by(ATTEMPTS.c.sent_at, ATTEMPTS.c.id)
    attempts = [attempt_of(found) for found in connection.execute(every)]
    result = result_of(attempts)
    if len(result["pictures"]) <= len((row.result or {}).get("pictures", ())):
        return None
    cost = sum(attempt.cost for attempt in attempts)
    ends = {"state": "completed", "cost": cost, "result": result, "error": None, "ended_at": at, "progress": 1.0}
    connection.execute(update(JOBS).where(JOBS.c.id == job).values(**ends, owner=None))
    if row.charged_to is not None:
        settle(connection, job, row.key, row.charged, row.charged_to, cost)
    ended = job_of(connection.execute(select(JOBS).where(JOBS.c.id == job)).one())
    if tell := messages(ended.order, "completed", state="completed"):
        connection.execute(insert(DELIVERIES), tell)
    return ended


def result_of(attempts: Sequence[AttemptRow]) -> Json:
    """The result of a job from its attempts: the images of each call, in the order of the calls."""
    made = {attempt.number: attempt for attempt in attempts if attempt.outcome == "ok" and attempt.files}
    images = [kept for number in sorted(made) for kept in made[number].files if kept["file"]]
    last = max(made.values(), key=lambda attempt: attempt.ended_at or 0.0, default=None)
    served: Json = {"provider": "", "model": "", "degraded": False}
    if last is not None:
        served = {"provider": last.provider, "model": last.model or last.route, "degraded": last.making.degraded}
    notes = [note for attempt in made.values() for note in (*attempt.making.notes, *attempt.notes)]
    return {"pictures": images, "served": served, "notes": list(dict.fromkeys(notes))}
