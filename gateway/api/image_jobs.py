"""`/images/jobs`: jobs by their ids, for callers whose patience or proxy is shorter than a job."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import failures, reply
from gateway.api.delivery import Delivery, deliver
from gateway.api.errors import ApiError, envelope, invalid
from gateway.api.placing import caller_of, origin_of
from gateway.api.reply import Pieces
from gateway.api.stream import Events
from gateway.jobs.job import Placed
from gateway.jobs.records import JobRow
from gateway.jobs.reports import Filter, NoSuchCursor
from gateway.routing.pricing import MICROS
from gateway.state import State

_LONGEST_WAIT_S = 120.0
_CANCEL_S = 20.0
_LOOK_S = 1.0
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_STATES = ("queued", "in_progress", "completed", "failed", "cancelled")


async def accepted(state: State, placed: Placed, origin: str) -> Response:
    """202: the job is written down, and its id says where to ask for it."""
    row = await _row(state, placed.id)
    headers = {**reply.job_headers(placed), "location": _urls(row, origin)["get"]}
    return JSONResponse(_plain(row, origin), 202, headers)


async def read_job(request: Request) -> Response:
    """One job; with `?wait=30` once it has ended, or after so many seconds; as server-sent events where asked."""
    state: State = request.app.state.darkroom
    row = await _own(request, state)
    origin = state.config.gateway.public_url or origin_of(request)
    if "text/event-stream" in request.headers.get("accept", ""):
        return Events(
            _events(state, row.order.id, origin),
            keep_alive=state.config.gateway.keep_alive_s,
            headers={"x-darkroom-job": row.order.id},
            gone=lambda: False,
            closed=lambda whole: None,
        )
    wait_s = _wait(request.query_params)
    if wait_s and not row.ended:
        await _ended(state, row.order.id, wait_s)
        row = await _row(state, row.order.id)
    return await _whole(state, row, origin)


async def cancel_job(request: Request) -> Response:
    """Cancel a job, upstream too, and tell what was billed; one that has ended stays as it is."""
    state: State = request.app.state.darkroom
    row = await _own(request, state)
    if not row.ended:
        try:
            await state.jobs.cancel(row.order.id, asyncio.get_running_loop().time() + _CANCEL_S)
        except failures.UNDONE as error:
            raise failures.told(error) from error
        row = await _row(state, row.order.id)
    return await _whole(state, row, state.config.gateway.public_url or origin_of(request))


async def list_jobs(request: Request) -> Response:
    """The caller's jobs, the newest first, page by page: `after` is the id to go on after."""
    state: State = request.app.state.darkroom
    query = request.query_params
    origin = state.config.gateway.public_url or origin_of(request)
    wanted = Filter(key=caller_of(request), model=query.get("model"), state=state_of(query.get("status")))
    try:
        page = await state.reports.page(wanted, after=query.get("after"), limit=limit_of(query))
    except NoSuchCursor:
        raise invalid("after", "Invalid 'after': there is no such job in this list.") from None
    except failures.UNDONE as error:
        raise failures.told(error) from error
    data = [_plain(told.job, origin) for told in page.entries]
    return JSONResponse(listed(data, more=page.more))


def listed(data: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page of a list; `next` is what `after` takes for the following one."""
    return {"object": "list", "data": data, "has_more": more, "next": data[-1]["id"] if more and data else None}


def limit_of(query: Mapping[str, str]) -> int:
    """How many entries a page has. Raises ApiError 400."""
    text = query.get("limit", "20")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 100:
        raise invalid("limit", "Invalid 'limit': expected a number from 1 to 100.")
    return int(text)


def state_of(text: str | None) -> str | None:
    """A job's state as a filter. Raises ApiError 400."""
    if text is not None and text not in _STATES:
        raise invalid("status", f"Invalid 'status': expected one of {', '.join(_STATES)}.")
    return text


def _wait(query: Mapping[str, str]) -> float:
    text = query.get("wait", "0")
    if not _NUMBER.fullmatch(text):
        raise invalid("wait", "Invalid 'wait': expected a number of seconds, such as 30.")
    return min(float(text), _LONGEST_WAIT_S)


async def _own(request: Request, state: State) -> JobRow:
    """The job that an address names, where it is the caller's. Raises ApiError 404."""
    try:
        row = await state.jobs.ledger.read(request.path_params["id"])
    except failures.UNDONE as error:
        raise failures.told(error) from error
    if row is None or row.order.key != caller_of(request):
        raise ApiError(404, "There is no such job, or not any more.", param="id", code="job_not_found")
    return row


async def _row(state: State, job: str) -> JobRow:
    try:
        row = await state.jobs.ledger.read(job)
    except failures.UNDONE as error:
        raise failures.told(error) from error
    if row is None:
        raise ApiError(404, "There is no such job any more.", param="id", code="job_not_found")
    return row


async def _ended(state: State, job: str, seconds: float) -> None:
    """Wait for a job's end, so long at most, and no longer than this process takes work."""
    until = asyncio.get_running_loop().time() + seconds
    work = asyncio.ensure_future(_quietly(state, job, until))
    ending = asyncio.ensure_future(state.jobs.let_go.wait())
    await asyncio.wait({work, ending}, return_when=asyncio.FIRST_COMPLETED)
    for task in (work, ending):
        task.cancel()
    await asyncio.gather(work, ending, return_exceptions=True)


async def _quietly(state: State, job: str, until: float) -> None:
    try:
        await state.jobs.ended(job, until)
    except failures.UNDONE as error:
        raise failures.told(error) from error


async def _events(state: State, job: str, origin: str) -> AsyncIterator[Sequence[bytes]]:
    """The job each time that there is something new of it, and at its end."""
    shown: dict[str, Any] = {}
    while not state.jobs.let_go.is_set():
        live = state.jobs.live(job)
        moved = live.moved if live else asyncio.Event()
        row = await _row(state, job)
        share = live.book.share if live and live.book.share else None
        now = _plain(row if share is None else replace(row, progress=share), origin)
        if now != shown:
            shown = now
            if row.ended:
                yield [f"event: image.job.{row.state}\ndata: ".encode(), *await _pieces(state, row, origin), b"\n\n"]
                return
            data = json.dumps(now, ensure_ascii=False, separators=(",", ":"))
            yield [f"event: image.job.{row.state}\ndata: {data}\n\n".encode()]
        waiting = asyncio.ensure_future(moved.wait())
        await asyncio.wait({waiting}, timeout=_LOOK_S)
        waiting.cancel()


async def _whole(state: State, row: JobRow, origin: str) -> Response:
    headers = {"x-darkroom-job": row.order.id}
    if not row.ended:
        headers["retry-after"] = "1"
    return Pieces(await _pieces(state, row, origin), headers, lambda whole: None)


async def _pieces(state: State, row: JobRow, origin: str) -> list[bytes]:
    """A job as JSON, with its result or its error, in pieces."""
    found = _plain(row, origin)
    pieces: list[bytes] = [b"null"]
    if row.ended:
        placed = Placed(id=row.order.id, created=row.order.created_at, joined=False, model=row.order.model)
        try:
            finished = await state.jobs.load(row)
            delivered, notes = await deliver(_delivery(row), finished, origin)
            pieces = reply.images_response(placed, finished, delivered, notes)
        except failures.UNDONE as error:
            found["error"] = envelope(failures.told(error))["error"]
    head = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    return [head[:-1], b',"result":', *pieces, b"}"]


def _delivery(row: JobRow) -> Delivery:
    """A job is asked for again and again: it has its pictures inside only where that was asked for."""
    kept = row.order.delivery
    explicit = bool(kept.get("explicit"))
    return Delivery(response_format=kept["response_format"] if explicit else "url", explicit=explicit)


def _plain(row: JobRow, origin: str) -> dict[str, Any]:
    """A job without its result."""
    order = row.order
    found: dict[str, Any] = {
        "id": order.id,
        "object": "image.job",
        "status": row.state,
        "created_at": int(order.created_at),
        "ended_at": int(row.ended_at) if row.ended_at is not None else None,
        "model": order.model,
        "progress": row.progress,
        "cost_estimate": order.estimate / MICROS,
        "cost": row.cost / MICROS if row.ended else None,
        "error": None,
        "urls": _urls(row, origin),
    }
    if row.cancel_asked and not row.ended:
        found["cancel_requested"] = True
    return found


def _urls(row: JobRow, origin: str) -> dict[str, str]:
    address = f"{origin}/openai/v1/images/jobs/{row.order.id}"
    return {"get": address, "cancel": f"{address}/cancel"}
