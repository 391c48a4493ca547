"""`/v1/requests`: past requests, their cost and every attempt."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import problems
from gateway.api.paths import (
    After,
    CreatedAfter,
    CreatedBefore,
    Flag,
    KeyFilter,
    Limit,
    ModelFilter,
    ObjectId,
    ProviderFilter,
    StateFilter,
    failures,
    is_id,
    success,
)
from gateway.api.schemas import (
    PageJson,
    PurgedJson,
    RequestAttemptJson,
    RequestEntryJson,
    RequestErrorJson,
    RequestJson,
    RequestSummaryJson,
    listed,
)
from gateway.api.submission import grant_of
from gateway.http import errors
from gateway.http.auth import GuardedRouter, Permission
from gateway.http.errors import ApiError, envelope, invalid
from gateway.ledger.records import AttemptRow
from gateway.ledger.reports import JobFilter, JobReport, NoSuchCursor, Summary
from gateway.ledger.store import LedgerDown
from gateway.routing.pricing import MICROS
from gateway.state import State
from gateway.storage import StorageError


def described(told: JobReport) -> RequestEntryJson:
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


def with_parameters(told: JobReport) -> RequestJson:
    """One request with its parameters, as far as they are stored."""
    return {**described(told), "parameters": told.job.order.params or None}


def summed(sums: Summary) -> RequestSummaryJson:
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


def duration_ms(told: JobReport) -> int | None:
    """From the request to the job's end, in milliseconds; None while the job runs."""
    job = told.job
    return round((job.ended_at - job.order.created_at) * 1000) if job.ended and job.ended_at is not None else None


def _error(told: JobReport) -> RequestErrorJson | None:
    if told.job.state not in ("failed", "cancelled"):
        return None
    inner = envelope(problems.of(told.job, [attempt.told() for attempt in told.attempts]))["error"]
    return {"message": inner["message"], "type": inner["type"], "code": inner["code"]}


def _attempt(attempt: AttemptRow) -> RequestAttemptJson:
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


router = GuardedRouter()


async def _filter(
    request: Request,
    model: ModelFilter = None,
    status: StateFilter = None,
    provider: ProviderFilter = None,
    key: KeyFilter = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
) -> JobFilter:
    state: State = request.app.state.darkroom
    providers = type(state.config.providers).model_fields
    if provider is not None and provider not in providers:
        raise invalid("provider", f"Invalid 'provider': expected one of {', '.join(providers)}.")
    # A key sees its own requests alone; an admin, and a client on this machine while there are no keys, sees all.
    return JobFilter(
        scope=grant_of(request).scope,
        key=key,
        model=model,
        provider=provider,
        state=status,
        since=created_after,
        before=created_before,
    )


@router.serve(
    "GET",
    "/v1/requests",
    Permission.KEY,
    operation_id="listRequests",
    summary="The client's requests as the ledger has them, the newest first.",
    responses={
        200: success("A page of requests, or sums over all of them.", PageJson[RequestEntryJson] | RequestSummaryJson)
    },
)
async def list_requests(
    request: Request,
    wanted: Annotated[JobFilter, Depends(_filter)],
    limit: Limit = 20,
    after: After = None,
    summary: Annotated[Flag, Query(description="Return the number of requests and their cost instead.")] = False,
) -> Response:
    """The client's requests, the newest first; with `summary=true` their sums instead.

    Filters: `model`, `provider`, `status`, `key`, `created_after` and `created_before` (seconds since the epoch, or
    ISO 8601).
    """
    state: State = request.app.state.darkroom
    try:
        if summary:
            if (paged := next((name for name in ("limit", "after") if name in request.query_params), None)) is not None:
                raise invalid(paged, f"A summary covers all requests: leave out '{paged}'.", "parameter_conflict")
            return JSONResponse(summed(await state.reports.summary(wanted)))
        page = await state.reports.page(wanted, after=after, limit=limit)
    except NoSuchCursor:
        raise invalid("after", "Invalid 'after': there is no such request in this list.") from None
    except LedgerDown:
        raise errors.unreadable() from None
    return JSONResponse(listed([described(told) for told in page.entries], more=page.more))


@router.serve(
    "GET",
    "/v1/requests/{id}",
    Permission.KEY,
    operation_id="readRequest",
    summary="Read a request by the `id` of its answer, with its parameters and every attempt.",
    responses={200: success("The request.", RequestJson), **failures(404)},
)
async def read_request(request: Request, request_id: ObjectId) -> Response:
    """One request, by the `id` of its answer, with its parameters and every attempt."""
    return JSONResponse(with_parameters(await _own(request, request_id)))


@router.serve(
    "DELETE",
    "/v1/requests/{id}/payload",
    Permission.KEY,
    operation_id="forgetPayload",
    summary="Delete a request's parameters, prompt and images. The bill stays.",
    responses={200: success("Deleted.", PurgedJson), **failures(404)},
)
async def forget_payload(request: Request, request_id: ObjectId) -> Response:
    """Delete a request's parameters, prompt and images. The bill stays."""
    state: State = request.app.state.darkroom
    told = await _own(request, request_id)
    job = told.job.order.id
    if not told.job.ended:
        message = "The job is still running: cancel it first, or wait for it to end."
        raise ApiError(400, message, param="id", code="job_in_progress")
    names = {str(kept["file"]) for attempt in told.attempts for kept in attempt.files if kept["file"]}
    try:
        await state.reports.forget_payload(job)
        deleted = [name for name in sorted(names) if await state.files.delete(name)]
        await state.received.forget(attempt.id for attempt in told.attempts)
    except LedgerDown:
        raise errors.unreadable() from None
    except StorageError:
        message = "The parameters were deleted, but an image could not be deleted at the moment: repeat the request."
        raise ApiError(503, message, type="server_error", code="files_unavailable") from None
    purged: PurgedJson = {"id": job, "object": "request", "purged": True, "files_deleted": len(deleted)}
    return JSONResponse(purged)


async def _own(request: Request, job: str) -> JobReport:
    state: State = request.app.state.darkroom
    try:
        told = await state.reports.one(job) if is_id(job) else None
    except LedgerDown:
        raise errors.unreadable() from None
    scope = grant_of(request).scope
    if told is None or (scope is not None and told.job.order.key != scope):
        raise ApiError(404, "Request not found, or no longer stored.", param="id", code="request_not_found")
    return told
