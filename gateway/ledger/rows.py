"""Between the ledger's rows and the values that they stand for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from gateway.ledger.records import AttemptRow, JobRow, Json, Making, Order, handle_of, handle_to_json, upstream_to_json
from providers.base import Upstream


def job_values(order: Order, *, state: str, owner: str | None, caller: str | None) -> Json:
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
        order=Order(
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
        making=Making.from_json(row.making),
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
