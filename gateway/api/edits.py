"""`POST /images/edits` in three acts: parse the request, replay or submit its job, and respond."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.api import problems, results, submission
from gateway.api.client import ClientConnection, ClientDisconnected, is_gone, unless_gone
from gateway.api.files import known, taken
from gateway.api.jobs import accepted
from gateway.api.parameters import EditRequest, check_addresses, read_fields, read_pictures
from gateway.api.paths import EVENTS, PREFIXES, RATES, described, failures, success
from gateway.api.schemas import DryRunJson, ImagesResponseJson, JobJson
from gateway.api.submission import EditCall, grant_of, origin_of
from gateway.http import errors
from gateway.http.admission import Reservation, ServerOverloaded
from gateway.http.auth import GuardedRouter, Permission
from gateway.http.body import check_encoding
from gateway.http.errors import ApiError, invalid
from gateway.http.form import Form, FormLimits, read_form
from gateway.http.streaming import EventStream
from gateway.imaging.pool import ImagingBusy
from gateway.jobs import sending
from gateway.jobs.errors import JobRef, JobResult
from gateway.ledger.records import JobSpec
from gateway.ledger.store import LedgerDown
from gateway.routing.selection import Candidate, Choice
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.telemetry import metrics
from providers.http.bodies import BodyPart
from providers.http.ssrf import UrlForbidden

# A job gets this much beyond its deadline to report how it ended.
_END_S = 0.5

router = GuardedRouter(*PREFIXES)


_SERVED = tuple(f"x-darkroom-{name}" for name in ("job", "provider", "model", "cost", "attempts", "degraded"))
_ANSWERS = {
    200: success(
        "The images; with `dry_run`, what would be tried.",
        ImagesResponseJson | DryRunJson,
        content=EVENTS,
        headers=(*_SERVED, "idempotent-replayed", *RATES),
        links=("readJob", "readRequest"),
    ),
    202: success(
        "The job runs in the background.",
        JobJson,
        headers=("location", "preference-applied", "x-darkroom-job", "retry-after"),
        links=("readJob", "cancelJob", "readRequest"),
    ),
    **failures(404, 410, 413, 415, 422, 429, 502, 504),
}
# The endpoint reads them by itself: FastAPI's reading of two flags takes 0.06 ms of every request.
_PARAMETERS = [
    described(
        submission.DRY_RUN[0],
        "query",
        "Return the routes that would be tried and their prices. Nothing is sent or spent.",
        type="boolean",
        default=False,
    ),
    described(
        "Idempotency-Key",
        "header",
        "A request with the key of an earlier one gets that one's job.",
        type="string",
        pattern="^[!-~]{1,255}$",
    ),
    described("Prefer", "header", "`respond-async` starts a background job.", type="string"),
    described("X-Darkroom-Routing", "header", "A short form of `routing`, such as `fal,cheapest`.", type="string"),
]


@router.serve(
    "POST",
    "/images/edits",
    Permission.METERED,
    query=submission.DRY_RUN,
    operation_id="editImage",
    summary="Edit or upscale an image.",
    responses=_ANSWERS,
    openapi_extra={"parameters": _PARAMETERS},
)
async def create_edit(request: Request) -> Response:
    """Edit or upscale an image. Errors are ApiError; once a stream has begun they are events."""
    state: State = request.app.state.darkroom
    length = announced(request)
    if length is not None and length > state.config.gateway.max_body_bytes:
        length = None  # it will be refused for its size, and not because the server is busy
    try:
        with state.load.admit(length, grant_of(request).id) as reservation:
            started = await _start(request, state, reservation, dry_run=submission.is_dry_run(request.query_params))
            return started if isinstance(started, Response) else await _respond(request, state, started)
    except (ServerOverloaded, ImagingBusy) as error:
        raise errors.overloaded(error.limit, kept=error.kept) from None
    except ClientDisconnected:
        return Response(status_code=499)  # nobody reads it; nginx' word for that in the log


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """What is left of a request once its job runs. The images are the job's, which releases them when it can."""

    call: EditCall
    spec: JobSpec
    job_ref: JobRef


async def _start(request: Request, state: State, reservation: Reservation, *, dry_run: bool) -> _Started | Response:
    """The first two acts, in a frame of their own: the form and its images are released when it returns.

    Raises ApiError, ServerOverloaded, ImagingBusy and ClientDisconnected.
    """
    call, edit, form = await _parse(request, state, reservation, dry_run=dry_run)
    if dry_run:
        edit, _, fitting = await _prepare(request, state, call, edit, form, reservation, dry_run=True)
        return submission.answer(edit, fitting)
    started = await _replay(state, call, edit, form) or await _submit(request, state, call, edit, form, reservation)
    state.jobs.when_over(started.job_ref.id, reservation.detach())
    return started


# --- parse: every field is typed, and no image is read


async def _parse(
    request: Request, state: State, reservation: Reservation, *, dry_run: bool
) -> tuple[EditCall, EditRequest, Form]:
    """Read the body and give every field its meaning. Raises ApiError and ServerOverloaded."""
    settings = state.config.gateway
    own, public = origin_of(request), settings.public_url
    form = known(await _form(request, settings, reservation), {public or own, own})
    reservation.begin()
    api_key = grant_of(request)
    routing = request.headers.get("x-darkroom-routing")
    edit = read_fields(form, state.config, api_key=api_key, routing=routing, dry=dry_run)
    request.scope["darkroom.model"] = edit.model.id
    _check_webhook(edit, state)
    check_addresses(edit, state.fetching.url_policy)
    call = await submission.read_call(request, edit, form, settings)
    if form.addressed:
        state.fetching.check(form)
    return call, edit, form


async def _form(request: Request, settings: GatewaySettings, reservation: Reservation) -> Form:
    check_encoding(request.headers)
    limits = FormLimits(
        max_body_bytes=settings.max_body_bytes,
        max_file_bytes=settings.max_upload_bytes,
        min_bytes_per_s=settings.min_upload_bytes_per_s,
    )
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await read_form(
                request.headers.get("content-type", ""),
                announced(request),
                reservation.counted(request.stream()),
                limits,
            )
    except TimeoutError:
        message = f"The request's body did not arrive within {settings.body_timeout_s:g} seconds."
        raise ApiError(408, message, code="request_timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "The connection ended before the body did.", code="truncated_body") from None


def announced(request: Request) -> int | None:
    """The body's length in bytes as its header announces it; None if it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None


def _check_webhook(edit: EditRequest, state: State) -> None:
    if edit.webhook_url is None:
        return
    try:
        state.fetching.url_policy.check(edit.webhook_url)
    except UrlForbidden as reason:
        raise invalid("webhook_url", f"Invalid 'webhook_url': {reason}.") from None


# --- replay or submit: the job that the request repeats, or a new one


async def _replay(state: State, call: EditCall, edit: EditRequest, form: Form) -> _Started | None:
    """The job that a request with image URLs repeats: its images may be gone from there. None if there is no such job.

    A request without URLs is matched when it is submitted.
    """
    if not form.addressed:
        return None
    spec = submission.job_spec(call, edit, (), keep=False)
    job_ref = await _place(state, call, spec, ())
    return None if job_ref is None else _Started(call=call, spec=spec, job_ref=job_ref)


async def _submit(
    request: Request, state: State, call: EditCall, edit: EditRequest, form: Form, reservation: Reservation
) -> _Started:
    """Start the job, or join the one that the request repeats.

    Raises ApiError, ServerOverloaded, ImagingBusy and ClientDisconnected.
    """
    settings = state.config.gateway
    edit, choice, fitting = await _prepare(request, state, call, edit, form, reservation, dry_run=False)
    spec = submission.job_spec(call, edit, fitting.candidates, keep=settings.keep_parameters)
    if await is_gone(request):
        # It may have waited so long for this process that its client has repeated it elsewhere since: no job is
        # started for a client that would never learn of it.
        raise ClientDisconnected
    job_ref = await _place(state, call, spec, fitting.candidates)
    if job_ref is None:
        raise submission.nothing_fits(edit, choice, fitting, settings)
    return _Started(call=call, spec=spec, job_ref=job_ref)


async def _prepare(
    request: Request,
    state: State,
    call: EditCall,
    edit: EditRequest,
    form: Form,
    reservation: Reservation,
    *,
    dry_run: bool,
) -> tuple[EditRequest, Choice, Choice]:
    """Load the images and select routes: all that the API key may use, and those whose results are within the limits.

    Raises ApiError, ServerOverloaded, ImagingBusy and ClientDisconnected.
    """
    form = await _fetched(request, state, form, reservation)
    edit = await read_pictures(edit, form, state.imaging, call.api_key.id)
    images = edit.request.images
    metrics.BYTES_IN.inc(sum(len(image.data) for image in images))
    choice = submission.select_routes(edit, state, call.api_key)
    fitting = submission.within_limits(edit, choice, state.config.gateway)
    # An image that a dry run only describes has no bytes that could be prepared.
    if not dry_run or all(image.data for image in images):
        fitting = await sending.ready(fitting, edit.request, state.imaging, call.api_key.id)
    return edit, choice, fitting


async def _fetched(request: Request, state: State, form: Form, reservation: Reservation) -> Form:
    """The form with its images in it.

    Raises ApiError, ServerOverloaded, and ClientDisconnected if the client leaves meanwhile.
    """
    if not form.addressed:
        return form
    # A few bytes name a large file: it is counted before it is read.
    form = await taken(state, form, reservation.add)
    sent = sum(len(file.data) for file in form.files)
    whole = await unless_gone(request, state.fetching.fetched(form, grant_of(request).id))
    reservation.add(sum(len(file.data) for file in whole.files) - sent)
    return whole


async def _place(state: State, call: EditCall, spec: JobSpec, candidates: Sequence[Candidate]) -> JobRef | None:
    """The request's job. One that repeats another joins its job also if no route could serve it now; else None.

    Raises ApiError.
    """
    retry = call.idempotency.retry
    try:
        if candidates:
            if spec.idempotency_key is None and retry == 0:
                await state.authenticator.check_budget(call.api_key, spec.reserve)
            return await state.jobs.place(spec, candidates, retry=retry)
        return await state.jobs.repeated(spec, retry)
    except problems.UNPLACED as error:
        raise problems.told(error) from error


# --- respond: 202, events, or JSON


async def _respond(request: Request, state: State, started: _Started) -> Response:
    """Answer with the job, its events, or its images. Raises ApiError, ServerOverloaded and ClientDisconnected."""
    call, job_ref = started.call, started.job_ref
    if call.mode == "background":
        return await accepted(request, state, started.spec, job_ref)
    release = await _reserve_answer(state, job_ref, call.api_key.id)
    waiting = _Waiting(
        state=state,
        call=call,
        job_ref=job_ref,
        client=ClientConnection(request, state.jobs, job_ref),
        urls=results.FileUrls.of(state, state.config.gateway.public_url or call.origin),
        until=state.jobs.clock.now() + call.deadline_s + _END_S,
        release=release,
    )
    return waiting.stream() if call.mode == "stream" else await waiting.answer()


async def _reserve_answer(state: State, job_ref: JobRef, key: str) -> Callable[[], None]:
    """Reserve memory for a replayed answer before it is read. Raises ServerOverloaded.

    The result of a job that this request started is paid for, and is never turned away.
    """
    row = None
    if job_ref.joined and state.jobs.live(job_ref.id) is None:
        with contextlib.suppress(LedgerDown):
            row = await state.jobs.ledger.read(job_ref.id)
    try:
        return state.load.answer(row.picture_bytes if row is not None else 0, key)
    except ServerOverloaded:
        state.jobs.leave(job_ref, delivered=False)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A client that waits for its job until `until` (of the jobs' clock). `release` gives back what was reserved."""

    state: State
    call: EditCall
    job_ref: JobRef
    client: ClientConnection
    urls: results.FileUrls
    until: float
    release: Callable[[], None]

    async def answer(self) -> Response:
        """The images as JSON. Raises ApiError and ClientDisconnected."""
        try:
            finished, delivered, notes = await self._result()
        except BaseException as error:
            self._close(delivered=isinstance(error, ApiError))
            raise
        results.count(self.job_ref, finished, delivered)
        counted = self.state.load.paid(_size_in_answer(delivered), self.call.api_key.id)
        self.release()

        def closed(whole: bool) -> None:
            counted()
            self.client.close(delivered=whole)

        return results.answer(self.job_ref, finished, delivered, notes, closed)

    def stream(self) -> Response:
        """The images as events, once they are there."""
        return EventStream(
            self._events(),
            keep_alive=self.state.config.gateway.keep_alive_s,
            headers=results.job_headers(self.job_ref),
            gone=lambda: self.client.gone,
            closed=lambda whole: self._close(delivered=whole),
        )

    async def _events(self) -> AsyncIterator[Sequence[BodyPart]]:
        try:
            finished, delivered, notes = await self._result()
            counted = self.state.load.paid(_size_in_answer(delivered), self.call.api_key.id)
        except ClientDisconnected:
            return
        finally:
            self.release()
        try:
            results.count(self.job_ref, finished, delivered)
            for item in delivered:
                yield results.completed(self.job_ref, finished, item, notes)
        finally:
            counted()

    async def _result(self) -> tuple[JobResult, list[results.ImageResult], list[str]]:
        """Wait for the job and bring its images into the requested form. Raises ApiError and ClientDisconnected."""
        options = self.call.options
        try:
            finished = await self.client.wait(self.until)
        except problems.UNDONE as error:
            leaving = self.state.jobs.shutting_down.is_set()
            raise problems.told(error, self.job_ref, leaving=leaving) from error
        if (missing := await problems.incomplete(options, finished, self.urls)) is not None:
            raise missing
        return finished, *await results.deliver(options, finished, self.urls)

    def _close(self, *, delivered: bool) -> None:
        self.release()
        self.client.close(delivered=delivered)


def _size_in_answer(delivered: Sequence[results.ImageResult]) -> int:
    """The bytes of the images that the answer contains."""
    return sum(len(item.image.data) for item in delivered if item.inside)
