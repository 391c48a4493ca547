"""Pictures that come to a process whose job another one has taken over meanwhile: they are paid for, and are kept.

They are written with their attempts, so that whoever has the job by now finds them at its end; where the job has ended
without them, as failed or with fewer pictures, it ends anew.
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

# What is known of an attempt only when it has ended.
_ENDS = ("model", "state", "outcome", "cost", "actual", "ended_at", "message", "notes", "files")


def taken(process: str, attempt: str, handle: Handle, at: float) -> Callable[[Connection], None]:
    """What writes down that a provider has taken an attempt, for a process."""
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
            # Another process had given it up, and perhaps the whole job: its provider has it all the same.
            job = select(ATTEMPTS.c.job).where(ATTEMPTS.c.id == attempt).scalar_subquery()
            given_up = update(JOBS).where(JOBS.c.id == job, JOBS.c.state == "failed")
            connection.execute(given_up.values(state="in_progress", owner=process, error=None, ended_at=None))

    return write


def save(connection: Connection, attempt: AttemptRow, *, over: bool = True) -> None:
    """Write an attempt's end; insert one that ended before anything was sent.

    What was sent, and where its job is, stays while the outcome is unknown: it may yet be found. Pictures that another
    process has written are never written over by an end without any; without `over` by none at all.
    """
    values = attempt_values(attempt)
    kept = {name: values[name] for name in _ENDS}
    if attempt.state == "ended":
        kept["sent"] = None
        if any(isinstance(step, JoinAlpha) for step in attempt.making.finish):
            kept["making"] = values["making"]  # without what it has of the caller's picture
    statement = SET_ATTEMPT if over and attempt.outcome == "ok" else SET_UNMADE_ATTEMPT
    if not connection.execute(statement, {"this": attempt.id, **kept}).rowcount:
        connection.execute(unless_there(connection, ATTEMPTS), values)


def keep(connection: Connection, job: str, attempts: Sequence[AttemptRow], at: float) -> bool:
    """Write down the pictures among these attempts at a job that is another process's; false where there are none."""
    made = [attempt for attempt in attempts if attempt.outcome == "ok" and any(kept["file"] for kept in attempt.files)]
    for attempt in made:
        save(connection, attempt, over=False)
    if made:
        gather(connection, job, at)
    return bool(made)


def gather(connection: Connection, job: str, at: float) -> JobRow | None:
    """Let a job that has ended end anew where its attempts have more pictures than it; as it is then, else None.

    One that was cancelled stays so, and one that goes on is left to its process.
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
    """What these attempts have made, as a job's result: the pictures of each call, in the order of the calls."""
    made = {attempt.number: attempt for attempt in attempts if attempt.outcome == "ok" and attempt.files}
    images = [kept for number in sorted(made) for kept in made[number].files if kept["file"]]
    last = max(made.values(), key=lambda attempt: attempt.ended_at or 0.0, default=None)
    served: Json = {"provider": "", "model": "", "degraded": False}
    if last is not None:
        served = {"provider": last.provider, "model": last.model or last.route, "degraded": last.making.degraded}
    notes = [note for attempt in made.values() for note in (*attempt.making.notes, *attempt.notes)]
    return {"pictures": images, "served": served, "notes": list(dict.fromkeys(notes))}
