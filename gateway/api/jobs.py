"""`/images/jobs`: jobs by id, for clients whose timeout is shorter than a job; as JSON or server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import problems, results
from gateway.api.client import disconnected
from gateway.api.paths import (
    EVENTS,
    PREFIXES,
    After,
    Limit,
    ModelFilter,
    ObjectId,
    StateFilter,
    Wait,
    failures,
    is_id,
    success,
)
from gateway.api.results import FileUrls, ResponseOptions, StreamingJSON
from gateway.api.schemas import JobEntryJson, JobJson, PageJson, listed
from gateway.api.submission import grant_of, origin_of, prefers_async
from gateway.http import auth, errors
from gateway.http.admission import ServerOverloaded
from gateway.http.auth import GuardedRouter, Permission
from gateway.http.errors import ApiError, ErrorDetailJson, envelope, invalid
from gateway.http.streaming import EventStream
from gateway.jobs.errors import JobRef, ResultExpired
from gateway.jobs.running import RunningJob
from gateway.ledger.records import Attempt, JobRow, JobSpec
from gateway.ledger.reports import JobFilter, NoSuchCursor
from gateway.ledger.store import LedgerDown
from gateway.routing.pricing import MICROS
from gateway.state import State
from gateway.storage import FileDamaged, StorageError
from providers.http.bodies import BodyPart


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUrls:
    """The URLs of a client: files are below `origin`, jobs below `jobs`."""

    origin: str
    jobs: str

    @classmethod
    def of(cls, request: Request, state: State) -> JobUrls:
        """As the client itself addressed the server, or as the setting `public_url` says."""
        origin = state.config.gateway.public_url or origin_of(request)
        prefix = "/v1" if request.url.path.startswith("/v1/") else "/openai/v1"
        return cls(origin=origin, jobs=f"{origin}{prefix}/images/jobs")

    def job(self, job: str) -> str:
        """A job's URL."""
        return f"{self.jobs}/{job}"


def described(row: JobRow, at: JobUrls, error: ErrorDetailJson | None = None) -> JobEntryJson:
    """A job without its result. `error` is the envelope's inside."""
    order = row.order
    found: JobEntryJson = {
        "id": order.id,
        "object": "image.job",
        "status": row.state,
        "created_at": int(order.created_at),
        "ended_at": int(row.ended_at) if row.ended and row.ended_at is not None else None,
        "model": order.model,
        "progress": row.progress,
        "cost_estimate": order.estimate / MICROS,
        "cost": row.cost / MICROS if row.ended else None,
        "error": error,
        "urls": {"get": at.job(order.id), "cancel": f"{at.job(order.id)}/cancel"},
    }
    if row.cancel_asked and not row.ended:
        found["cancel_requested"] = True
    return found


def error_in_list(row: JobRow, attempts: Sequence[Attempt]) -> ErrorDetailJson | None:
    """Why a job of a list has no result, by its state; whether its files still exist is not checked."""
    if row.state not in ("failed", "cancelled"):
        return None
    return envelope(problems.of(row, attempts))["error"]


@asynccontextmanager
async def room_for(state: State, row: JobRow) -> AsyncIterator[Callable[[], None]]:
    """Reserve memory for the images in a job's answer. The yielded function releases it: it is called here if the block
    fails, and else once the answer is sent. Raises ServerOverloaded."""
    inside = row.state == "completed" and ResponseOptions.of_job(row.order.delivery).has_bytes
    let_go = state.load.answer(row.picture_bytes if inside else 0, row.order.key)
    try:
        yield let_go
    except BaseException:
        let_go()
        raise


async def whole(state: State, row: JobRow, at: JobUrls) -> list[BodyPart]:
    """A job as JSON, in pieces, with its result once there is one, or the error that stands in its place.

    Raises LedgerDown, and StorageError if its images are stored but cannot be read at the moment.
    """
    result: list[BodyPart] = [b"null"]
    error: ErrorDetailJson | None = None
    if row.ended:
        try:
            result = await _result(state, row, at)
        except ApiError as refused:
            error = envelope(refused)["error"]
    head = json.dumps(described(row, at, error), ensure_ascii=False, separators=(",", ":")).encode()
    return [head[:-1], b',"result":', *result, b"}"]


async def _result(state: State, row: JobRow, at: JobUrls) -> list[BodyPart]:
    """OpenAI's ImagesResponse. Raises ApiError if the job has no result, LedgerDown, and StorageError."""
    if row.state != "completed":
        raise problems.of(row, [attempt.told() for attempt in await state.jobs.ledger.attempts(row.order.id)])
    job_ref = JobRef(id=row.order.id, created=row.order.created_at, joined=False, model=row.order.model)
    preferences = ResponseOptions.of_job(row.order.delivery)
    links = FileUrls.of(state, at.origin)
    try:
        finished = await state.jobs.load(row, None if preferences.has_bytes else state.files.look)
        if (missing := await problems.incomplete(preferences, finished, links)) is not None:
            raise missing
        delivered, notes = await results.deliver(preferences, finished, links)
        if any(item.inside for item in delivered) and not preferences.has_bytes:
            # There is no URL to return: the images themselves are needed.
            finished = await state.jobs.load(row)
            delivered, notes = await results.deliver(preferences, finished, links)
    except (ResultExpired, FileDamaged) as error:
        raise problems.told(error) from error
    return results.images_response(job_ref, finished, delivered, notes)


# How often the ledger is read for a job that runs in another process, in seconds.
_LOOK_S = 1.0


def follow(request: Request, state: State, job: str) -> EventStream:
    """The events of one job, until the job ends, the client disconnects, or this process shuts down."""
    return EventStream(
        _events(request, state, job, JobUrls.of(request, state)),
        keep_alive=state.config.gateway.keep_alive_s,
        headers={"x-darkroom-job": job},
        gone=lambda: False,  # the events themselves end then
        closed=lambda whole: None,
    )


async def wait_for_end(request: Request, state: State, job: str, seconds: float) -> bool:
    """Wait up to `seconds` for a job to end, or until this process shuts down; false if the client disconnects."""
    until = state.jobs.clock.now() + seconds
    leaving = asyncio.create_task(disconnected(request))
    waits = [leaving, asyncio.create_task(state.jobs.ended(job, until)), asyncio.create_task(_away(state, job).wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return not leaving.done()
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _events(request: Request, state: State, job: str, at: JobUrls) -> AsyncIterator[Sequence[BodyPart]]:
    gone = asyncio.create_task(disconnected(request))
    shown: list[BodyPart] = []
    stack = contextlib.ExitStack()
    try:
        while not gone.done():
            live = state.jobs.live(job)
            # Taken before the ledger is read: what comes after is not missed.
            moved, away = live.moved if live else asyncio.Event(), _away(state, job)
            now, ended = shown, False
            # It may be back, or there may be room, at the next look.
            with contextlib.suppress(LedgerDown, StorageError, ServerOverloaded):
                row = _fresh(await found(state, job), live)
                async with room_for(state, row) as let_go:
                    stack.callback(let_go)
                    now = [f"event: image.job.{row.state}\ndata: ".encode(), *await whole(state, row, at)]
                ended = row.ended
            if now != shown:
                shown = now
                yield [*now, b"\n\n"]
            if ended or away.is_set():
                return
            await _any_of(gone, moved, away)
    finally:
        gone.cancel()
        stack.close()


async def found(state: State, job: str) -> JobRow:
    """A job by its id, even if this process has not written it to the ledger yet. Raises ApiError 404, LedgerDown."""
    row = await state.jobs.ledger.read(job)
    if row is not None:
        return row
    if (live := state.jobs.live(job)) is not None:
        return JobRow(order=live.order, state="queued", cost=0)
    raise no_such_job()


def no_such_job() -> ApiError:
    """The 404 for a job that does not exist, or belongs to another API key."""
    return ApiError(404, "Job not found, or no longer stored.", param="id", code="job_not_found")


def _away(state: State, job: str) -> asyncio.Event:
    """The event that ends waiting for a job: a job of this process may still end while it shuts down."""
    return state.jobs.shutting_down if state.jobs.live(job) else state.jobs.leaving


def _fresh(row: JobRow, live: RunningJob | None) -> JobRow:
    """With the current progress if the job runs in this process: the ledger's is a little older."""
    return (
        replace(row, progress=round(live.recorder.share, 3)) if live and live.recorder.share and not row.ended else row
    )


async def _any_of(gone: asyncio.Task[None], *events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({gone, *waits}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()


_CANCEL_S = 20.0

router = GuardedRouter(*PREFIXES)


async def accepted(request: Request, state: State, order: JobSpec, job_ref: JobRef) -> Response:
    """202: the job is recorded, and can be read by its id."""
    at = JobUrls.of(request, state)
    # A new one is not read back: it has been accepted, whatever becomes of the ledger now.
    row = await _read(state, job_ref.id) if job_ref.joined else JobRow(order=order, state="queued", cost=0)
    headers = {**results.job_headers(job_ref), "location": at.job(job_ref.id)}
    if prefers_async(request):
        headers["preference-applied"] = "respond-async"
    return await _answer(state, row, at, headers, status=202)


_JOB = ("x-darkroom-job", "retry-after")


@router.serve(
    "GET",
    "/images/jobs/{id}",
    Permission.KEY,
    operation_id="readJob",
    summary="Read a job: now, once it has ended (`wait`), or as events whenever it changes.",
    responses={200: success("The job.", JobJson, content=EVENTS, headers=_JOB), **failures(404)},
)
async def read_job(request: Request, job_id: ObjectId, wait: Wait = 0) -> Response:
    """One job; with `?wait=30` once it has ended, or after that many seconds; as server-sent events if requested."""
    state: State = request.app.state.darkroom
    rate = await auth.count(state.authenticator.rates, grant_of(request))
    row = await _own(request, state, job_id)
    if "text/event-stream" in request.headers.get("accept", "").lower():
        events = follow(request, state, row.order.id)
        events.headers.update(rate)
        return events
    if wait and not row.ended:
        if not await wait_for_end(request, state, row.order.id, wait):
            return Response(status_code=499)  # nobody reads it; nginx' word for that in the log
        row = await _read(state, row.order.id)
    return await _answer(state, row, JobUrls.of(request, state), rate)


@router.serve(
    "POST",
    "/images/jobs/{id}/cancel",
    Permission.KEY,
    operation_id="cancelJob",
    summary="Cancel a job, at the provider too. One that has ended stays as it is.",
    responses={200: success("The job, and what was billed.", JobJson, headers=_JOB), **failures(404, 502, 504)},
)
async def cancel_job(request: Request, job_id: ObjectId) -> Response:
    """Cancel a job, at the provider too, and report what was billed; one that has ended stays as it is."""
    state: State = request.app.state.darkroom
    row = await _own(request, state, job_id)
    if not row.ended:
        try:
            await state.jobs.cancel(row.order.id, state.jobs.clock.now() + _CANCEL_S)
        except LedgerDown:
            raise errors.unreadable() from None
        except problems.UNDONE as error:
            raise problems.told(error) from error
        row = await _read(state, row.order.id)
    return await _answer(state, row, JobUrls.of(request, state))


@router.serve(
    "GET",
    "/images/jobs",
    Permission.KEY,
    operation_id="listJobs",
    summary="The client's jobs, the newest first, without their results.",
    responses={200: success("A page of jobs.", PageJson[JobEntryJson])},
)
async def list_jobs(
    request: Request,
    limit: Limit = 20,
    after: After = None,
    model: ModelFilter = None,
    status: StateFilter = None,
) -> Response:
    """The client's jobs without their results, the newest first, page by page."""
    state: State = request.app.state.darkroom
    at = JobUrls.of(request, state)
    wanted = JobFilter(scope=grant_of(request).scope, model=model, state=status)
    try:
        page = await state.reports.page(wanted, after=after, limit=limit)
    except NoSuchCursor:
        raise invalid("after", "Invalid 'after': there is no such job in this list.") from None
    except LedgerDown:
        raise errors.unreadable() from None
    data = [
        described(entry.job, at, error_in_list(entry.job, [attempt.told() for attempt in entry.attempts]))
        for entry in page.entries
    ]
    return JSONResponse(listed(data, more=page.more))


async def _own(request: Request, state: State, job: str) -> JobRow:
    """The client's job of this id. Raises ApiError 404."""
    row = await _read(state, job) if is_id(job) else None
    scope = grant_of(request).scope
    if row is None or (scope is not None and row.order.key != scope):
        raise no_such_job()
    return row


async def _read(state: State, job: str) -> JobRow:
    try:
        return await found(state, job)
    except LedgerDown:
        raise errors.unreadable() from None


async def _answer(
    state: State, row: JobRow, at: JobUrls, more: Mapping[str, str] | None = None, *, status: int = 200
) -> Response:
    headers = {"x-darkroom-job": row.order.id, **(more or {})}
    if not row.ended:
        headers["retry-after"] = "1"
    try:
        async with room_for(state, row) as let_go:
            return StreamingJSON(await whole(state, row, at), headers, lambda sent: let_go(), status=status)
    except LedgerDown:
        raise errors.unreadable() from None
    except ServerOverloaded as error:
        raise errors.overloaded(error.limit) from None
    except StorageError as error:
        raise problems.told(error) from error
