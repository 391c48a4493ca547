"""`/images/jobs`: jobs by their ids, for callers whose patience or proxy is shorter than a job."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import problems, rate_limit, results
from gateway.api.job_body import Addresses, described, error_in_list, room_for, whole
from gateway.api.job_events import follow, found, no_such_job, wait_for_end
from gateway.api.pagination import after_of, is_id, limit_of, listed, state_of, word_of
from gateway.api.results import Pieces
from gateway.api.submission import grant_of, prefers_async
from gateway.http.admission import Overloaded
from gateway.http.errors import invalid
from gateway.jobs.errors import Placed
from gateway.ledger.records import JobRow, Order
from gateway.ledger.reports import Filter, NoSuchCursor
from gateway.ledger.store import LedgerDown
from gateway.state import State
from gateway.storage import StoreFailed

LONGEST_WAIT_S = 120
_CANCEL_S = 20.0
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


async def accepted(request: Request, state: State, order: Order, placed: Placed) -> Response:
    """202: the job is written down, and its id says where to ask for it."""
    at = Addresses.of(request, state)
    # A new one is not read back: it has been accepted, whatever becomes of the ledger now.
    row = await _read(state, placed.id) if placed.joined else JobRow(order=order, state="queued", cost=0)
    headers = {**results.job_headers(placed), "location": at.job(placed.id)}
    if prefers_async(request):
        headers["preference-applied"] = "respond-async"
    return await _answer(state, row, at, headers, status=202)


async def read_job(request: Request) -> Response:
    """One job; with `?wait=30` once it has ended, or after so many seconds; as server-sent events where asked."""
    state: State = request.app.state.darkroom
    rate = await rate_limit.count(state.doors.rates, grant_of(request))
    row = await _own(request, state)
    if "text/event-stream" in request.headers.get("accept", "").lower():
        events = follow(request, state, row.order.id)
        events.headers.update(rate)
        return events
    wait_s = _wait(request.query_params)
    if wait_s and not row.ended:
        if not await wait_for_end(request, state, row.order.id, wait_s):
            return Response(status_code=499)  # nobody reads it; nginx' word for that in the log
        row = await _read(state, row.order.id)
    return await _answer(state, row, Addresses.of(request, state), rate)


async def cancel_job(request: Request) -> Response:
    """Cancel a job, upstream too, and tell what was billed; one that has ended stays as it is."""
    state: State = request.app.state.darkroom
    row = await _own(request, state)
    if not row.ended:
        try:
            await state.jobs.cancel(row.order.id, state.jobs.clock.now() + _CANCEL_S)
        except LedgerDown:
            raise problems.unreadable() from None
        except problems.UNDONE as error:
            raise problems.told(error) from error
        row = await _read(state, row.order.id)
    return await _answer(state, row, Addresses.of(request, state))


async def list_jobs(request: Request) -> Response:
    """The caller's jobs, the newest first, page by page: `after` is the id to go on after. Without their results."""
    state: State = request.app.state.darkroom
    query = request.query_params
    at = Addresses.of(request, state)
    wanted = Filter(scope=grant_of(request).scope, model=word_of(query, "model"), state=state_of(query))
    try:
        page = await state.reports.page(wanted, after=after_of(query), limit=limit_of(query))
    except NoSuchCursor:
        raise invalid("after", "Invalid 'after': there is no such job in this list.") from None
    except LedgerDown:
        raise problems.unreadable() from None
    data = [
        described(entry.job, at, error_in_list(entry.job, [attempt.told() for attempt in entry.attempts]))
        for entry in page.entries
    ]
    return JSONResponse(listed(data, more=page.more))


def _wait(query: Mapping[str, str]) -> float:
    text = query.get("wait", "0")
    if not _NUMBER.fullmatch(text) or float(text) > LONGEST_WAIT_S:
        raise invalid("wait", f"Invalid 'wait': expected a number of seconds up to {LONGEST_WAIT_S}.")
    return float(text)


async def _own(request: Request, state: State) -> JobRow:
    """The job that an address names, where it is the caller's. Raises ApiError 404."""
    job = request.path_params["id"]
    row = await _read(state, job) if is_id(job) else None
    scope = grant_of(request).scope
    if row is None or (scope is not None and row.order.key != scope):
        raise no_such_job()
    return row


async def _read(state: State, job: str) -> JobRow:
    try:
        return await found(state, job)
    except LedgerDown:
        raise problems.unreadable() from None


async def _answer(
    state: State, row: JobRow, at: Addresses, more: Mapping[str, str] | None = None, *, status: int = 200
) -> Response:
    headers = {"x-darkroom-job": row.order.id, **(more or {})}
    if not row.ended:
        headers["retry-after"] = "1"
    try:
        async with room_for(state, row) as let_go:
            return Pieces(await whole(state, row, at), headers, lambda sent: let_go(), status=status)
    except LedgerDown:
        raise problems.unreadable() from None
    except Overloaded as error:
        raise problems.overloaded(error.limit) from None
    except StoreFailed as error:
        raise problems.told(error) from error
