"""SQL of the ledger: prebuilt statements, conversion of rows, and the webhook messages of a job.

Building a statement costs several times as much as running it. `this` is the row's id; other parameters are set.
"""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Insert, Row, Table, bindparam, func, insert, select, update

from gateway.database.engine import insert_new
from gateway.database.schema import ATTEMPTS, JOBS
from gateway.ledger.records import (
    AttemptRow,
    JobRow,
    JobSpec,
    Json,
    OutputSpec,
    handle_of,
    handle_to_json,
    upstream_to_json,
)
from providers.base import Upstream


def job_values(order: JobSpec, *, state: str, owner: str | None, caller: str | None) -> Json:
    """A new job's row."""
    return {
        "id": order.id,
        "key": order.key,
        "idempotency_key": order.idempotency_key,
        "fingerprint": order.fingerprint,
        "request_id": order.request_id,
        "model": order.model,
        "mode": order.mode,
        "params": order.params or None,
        "delivery": order.delivery,
        "state": state,
        "wanted": order.wanted,
        "estimate": order.estimate,
        "cost": 0,
        "created_at": order.created_at,
        "deadline_at": order.deadline_at,
        "owner": owner,
        "caller": caller,
        "retry": order.retry,
        "joins": 0,
        "cancel_asked": False,
        "webhook_url": order.webhook_url,
        "webhook_events": list(order.webhook_events) or None,
    }


def job_of(row: Row[Any]) -> JobRow:
    """A job from its row."""
    return JobRow(
        order=JobSpec(
            id=row.id,
            key=row.key,
            idempotency_key=row.idempotency_key,
            fingerprint=row.fingerprint,
            request_id=row.request_id,
            model=row.model,
            mode=row.mode,
            params=row.params or {},
            delivery=row.delivery or {},
            wanted=row.wanted,
            estimate=row.estimate,
            created_at=row.created_at,
            deadline_at=row.deadline_at,
            arrived_at=row.created_at,
            retry=row.retry,
            webhook_url=row.webhook_url,
            webhook_events=tuple(row.webhook_events or ()),
        ),
        state=row.state,
        cost=row.cost,
        owner=row.owner,
        caller=row.caller,
        ended_at=row.ended_at,
        progress=row.progress,
        result=row.result,
        error=row.error,
        cancel_asked=row.cancel_asked,
        kills=row.kills,
    )


def attempt_values(attempt: AttemptRow) -> Json:
    """An attempt's row."""
    return {
        "id": attempt.id,
        "job": attempt.job,
        "number": attempt.number,
        "provider": attempt.provider,
        "route": attempt.route,
        "model": attempt.model,
        "upstream": upstream_to_json(attempt.upstream),
        "making": (attempt.making.done() if attempt.state == "ended" else attempt.making).to_json(),
        "state": attempt.state,
        "outcome": attempt.outcome,
        "sent": dict(attempt.sent) if attempt.sent is not None else None,
        "handle": handle_to_json(attempt.handle) if attempt.handle else None,
        "upstream_id": attempt.handle.id if attempt.handle else None,
        "estimate": attempt.estimate,
        "cost": attempt.cost,
        "actual": attempt.actual,
        "sent_at": attempt.sent_at,
        "submitted_at": attempt.submitted_at,
        "ended_at": attempt.ended_at,
        "message": attempt.message,
        "notes": list(attempt.notes),
        "files": list(attempt.files),
    }


def attempt_of(row: Row[Any]) -> AttemptRow:
    """An attempt from its row."""
    return AttemptRow(
        id=row.id,
        job=row.job,
        number=row.number,
        provider=row.provider,
        route=row.route,
        model=row.model,
        upstream=Upstream(model=row.upstream["model"], options=row.upstream["options"]),
        making=OutputSpec.from_json(row.making),
        state=row.state,
        outcome=row.outcome,
        sent=row.sent,
        heard=row.heard,
        handle=handle_of(row.handle),
        estimate=row.estimate,
        cost=row.cost,
        actual=row.actual,
        sent_at=row.sent_at,
        submitted_at=row.submitted_at,
        ended_at=row.ended_at,
        message=row.message,
        notes=tuple(row.notes or ()),
        files=tuple(row.files or ()),
    )


EVENTS = ("progress", "completed", "failed")


def messages(order: JobSpec, event: str, *, state: str, progress: float | None = None) -> list[Json]:
    """The rows to insert for an event of a job: one if its client subscribed to the event, else an empty list.

    The body is small, because logs and proxies see webhooks: clients read the rest from the job.
    """
    if order.webhook_url is None or event not in (order.webhook_events or EVENTS[1:]):
        return []
    now = time.time()
    data: Json = {
        "id": order.id,
        "object": "image.job",
        "status": state,
        "model": order.model,
        "created_at": int(order.created_at),
    }
    if progress is not None:
        data["progress"] = progress
    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = json.dumps({"type": f"image.job.{event}", "timestamp": stamp, "data": data}, separators=(",", ":"))
    return [
        {
            "id": f"msg_{secrets.token_hex(12)}",
            "job": order.id,
            "key": order.key,
            "url": order.webhook_url,
            "event": event,
            "body": body,
            "state": "pending",
            "tries": 0,
            "created_at": now,
            "next_at": now,
        }
    ]


JOB = select(JOBS).where(JOBS.c.id == bindparam("this"))
JOB_IS_THERE = select(JOBS.c.id).where(JOBS.c.id == bindparam("this"))
SET_JOB = update(JOBS).where(JOBS.c.id == bindparam("this"))
# Only if the process `by` owns the job, or serves its client.
SET_OWN_JOB = SET_JOB.where(JOBS.c.owner == bindparam("by"))
SET_AWAITED_JOB = SET_JOB.where(JOBS.c.caller == bindparam("by"))
# Returns the amount reserved from its key's budget. Without `reached` its progress is unchanged.
END_OWN_JOB = SET_OWN_JOB.values(progress=func.coalesce(bindparam("reached"), JOBS.c.progress)).returning(
    JOBS.c.charged, JOBS.c.charged_to
)
NEW_JOB = insert(JOBS)
ATTEMPT = select(ATTEMPTS).where(ATTEMPTS.c.id == bindparam("this"))
SET_ATTEMPT = update(ATTEMPTS).where(ATTEMPTS.c.id == bindparam("this"))
# Only if no image of the attempt is recorded.
SET_UNMADE_ATTEMPT = SET_ATTEMPT.where(func.coalesce(ATTEMPTS.c.outcome, "") != "ok")
# Only if nothing has been recorded since it was sent.
SET_SENT_ATTEMPT = SET_ATTEMPT.where(ATTEMPTS.c.state == "submitting")

_UNLESS_THERE: dict[tuple[str, str], Insert] = {}


def unless_there(connection: Connection, table: Table) -> Insert:
    """An insert that returns the new row's id, or no row if one exists already."""
    kind = connection.dialect.name, table.name
    if kind not in _UNLESS_THERE:
        # The Postgres driver does not report the number of inserted rows.
        _UNLESS_THERE[kind] = insert_new(connection, table).returning(table.c.id)
    return _UNLESS_THERE[kind]
