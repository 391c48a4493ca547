"""`/v1/requests`: what happened and what it cost, with every attempt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import failures
from gateway.api.errors import ApiError, envelope, invalid
from gateway.api.image_jobs import limit_of, listed, state_of
from gateway.api.placing import caller_of
from gateway.jobs.records import AttemptRow
from gateway.jobs.reports import Filter, NoSuchCursor, Told
from gateway.routing.pricing import MICROS
from gateway.state import State

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


async def list_requests(request: Request) -> Response:
    """The caller's requests, the newest first; with `summary=true` their sums instead.

    Filters: `model`, `provider`, `status`, `key`, `created_after` and `created_before` (seconds since the epoch, or
    ISO 8601).
    """
    state: State = request.app.state.darkroom
    query = request.query_params
    wanted = _filter(request)
    try:
        if query.get("summary", "").lower() in ("true", "1"):
            return JSONResponse(_sums(await state.reports.summary(wanted)))
        page = await state.reports.page(wanted, after=query.get("after"), limit=limit_of(query))
    except NoSuchCursor:
        raise invalid("after", "Invalid 'after': there is no such request in this list.") from None
    except failures.UNDONE as error:
        raise failures.told(error) from error
    return JSONResponse(listed([_described(told) for told in page.entries], more=page.more))


async def read_request(request: Request) -> Response:
    """One request, by the `id` of its answer, with its parameters and every attempt."""
    state: State = request.app.state.darkroom
    told = await _own(request, state)
    found = _described(told)
    found["parameters"] = told.job.order.params or None
    return JSONResponse(found)


async def forget_payload(request: Request) -> Response:
    """Forget what was asked and what came of it: the parameters, the prompt, the pictures. The bill stays."""
    state: State = request.app.state.darkroom
    told = await _own(request, state)
    if not told.job.ended:
        raise ApiError(400, "The job goes on: cancel it first, or wait for its end.", code="job_in_progress")
    names = [str(kept["file"]) for attempt in told.attempts for kept in attempt.files if kept["file"]]
    try:
        await state.reports.forget_parameters(job=told.job.order.id)
        deleted = [name for name in names if await state.files.delete(name)]
    except failures.UNDONE as error:
        raise failures.told(error) from error
    return JSONResponse({"id": told.job.order.id, "object": "request", "purged": True, "files_deleted": len(deleted)})


def _filter(request: Request) -> Filter:
    query = request.query_params
    own = caller_of(request)
    # A key sees what is its own: asking for another one's finds nothing. Without keys, everybody here is the operator.
    key = query.get("key", own or None)
    return Filter(
        key=key if not own or key == own else f"not {own}",
        model=query.get("model"),
        provider=query.get("provider"),
        state=state_of(query.get("status")),
        since=_time(query, "created_after"),
        before=_time(query, "created_before"),
    )


def _time(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise invalid(name, f"Invalid '{name}': expected seconds since the epoch, or a time in ISO 8601.") from None


async def _own(request: Request, state: State) -> Told:
    try:
        told = await state.reports.one(request.path_params["id"])
    except failures.UNDONE as error:
        raise failures.told(error) from error
    own = caller_of(request)
    if told is None or (own and told.job.order.key != own):
        raise ApiError(404, "There is no such request, or not any more.", param="id", code="request_not_found")
    return told


def _sums(sums: Any) -> dict[str, Any]:
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


def _described(told: Told) -> dict[str, Any]:
    job, order = told.job, told.job.order
    served = (job.result or {}).get("served", {})
    return {
        "id": order.id,
        "object": "request",
        "created_at": order.created_at,
        "ended_at": job.ended_at,
        "duration_ms": round((job.ended_at - order.created_at) * 1000) if job.ended_at is not None else None,
        "model": order.model,
        "status": job.state,
        "mode": order.mode,
        "key": order.key or None,
        "request_id": order.request_id,
        "idempotency_key": order.idempotency_key,
        "provider": served.get("provider"),
        "cost_estimate": order.estimate / MICROS,
        "cost": job.cost / MICROS,
        "cost_currency": "USD",
        "error": _error(told),
        "attempts": [_attempt(attempt) for attempt in told.attempts],
    }


def _error(told: Told) -> dict[str, object] | None:
    if told.job.state not in ("failed", "cancelled"):
        return None
    error = failures.of(told.job, [attempt.told() for attempt in told.attempts])
    inner = envelope(error)["error"]
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
