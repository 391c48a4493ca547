"""A request as the ledger tells of it: what it cost, every attempt, and why it failed, as JSON."""

from __future__ import annotations

from typing import Any

from gateway.api import problems
from gateway.http.errors import envelope
from gateway.ledger.records import AttemptRow
from gateway.ledger.reports import Summary, Told
from gateway.routing.pricing import MICROS


def described(told: Told) -> dict[str, Any]:
    """One request, without its parameters. Times are in seconds since the epoch, money in US dollars."""
    job, order = told.job, told.job.order
    result = job.result or {}
    return {
        "id": order.id,
        "object": "request",
        "created_at": order.created_at,
        "ended_at": job.ended_at if job.ended else None,
        "duration_ms": duration_ms(told),
        "model": order.model,
        "status": job.state,
        "mode": order.mode,
        "key": order.key or None,
        "request_id": order.request_id,
        "idempotency_key": order.idempotency_key,
        "provider": result.get("served", {}).get("provider"),
        "images_wanted": order.wanted,
        "images": len(result.get("pictures", ())),
        "cost_estimate": order.estimate / MICROS,
        "cost": job.cost / MICROS,
        "cost_currency": "USD",
        "error": _error(told),
        "attempts": [_attempt(attempt) for attempt in told.attempts],
    }


def with_parameters(told: Told) -> dict[str, Any]:
    """One request with what was asked, as far as that is kept."""
    return {**described(told), "parameters": told.job.order.params or None}


def summed(sums: Summary) -> dict[str, Any]:
    """Sums over requests."""
    return {
        "object": "request.summary",
        "count": sums.count,
        "cost": sums.cost / MICROS,
        "cost_currency": "USD",
        "by_provider": {
            name: {"attempts": number, "cost": spent / MICROS}
            for name, (number, spent) in sorted(sums.by_provider.items())
        },
    }


def duration_ms(told: Told) -> int | None:
    """From the call to the job's end, in milliseconds; None while it goes on."""
    job = told.job
    return round((job.ended_at - job.order.created_at) * 1000) if job.ended and job.ended_at is not None else None


def _error(told: Told) -> dict[str, object] | None:
    if told.job.state not in ("failed", "cancelled"):
        return None
    inner = envelope(problems.of(told.job, [attempt.told() for attempt in told.attempts]))["error"]
    return {name: inner[name] for name in ("message", "type", "code")}


def _attempt(attempt: AttemptRow) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "provider": attempt.provider,
        "route": attempt.route,
        "model": attempt.model or attempt.route,
        "picture": attempt.number,
        "status": attempt.state,
        "outcome": attempt.outcome,
        "upstream_id": attempt.handle.id if attempt.handle else attempt.heard,
        "sent_at": attempt.sent_at,
        "submitted_at": attempt.submitted_at,
        "ended_at": attempt.ended_at,
        "estimate": attempt.estimate / MICROS,
        "cost": attempt.cost / MICROS,
        "actual": attempt.actual,
        "message": attempt.message,
    }
