"""`POST /images/edits`: the main job, from the body to the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.api import problems, results, submission
from gateway.api.client import ClientConnection, ClientDisconnected, is_gone, unless_gone
from gateway.api.delivery import FileUrls, ResponseOptions, deliver, incomplete
from gateway.api.files import known, taken
from gateway.api.jobs import accepted
from gateway.api.parameters import EditRequest, check_addresses, read_fields, read_pictures
from gateway.api.paths import PREFIXES, Flag
from gateway.api.submission import grant_of, mode_of, order_of, origin_of, read_repeat
from gateway.auth.keys import ApiKey
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
from gateway.routing.selection import Candidate, Choice, Excluded, choose
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.telemetry import metrics
from normalization.images.encode import MAX_SIDE
from normalization.parameters.coerce import InvalidValue
from normalization.values import Plan, Resize, Size, Transcode
from providers.http.bodies import BodyPart
from providers.http.ssrf import UrlForbidden

# What a job is given beyond its deadline to tell how it ended by then.
_END_S = 0.5


router = GuardedRouter(*PREFIXES)


@router.serve("POST", "/images/edits", Permission.METERED)
async def create_edit(
    request: Request,
    dry_run: Annotated[
        Flag, Query(description="Return the routes that would be tried and their prices. Nothing is sent or spent.")
    ] = False,
    dry_run_alias: Annotated[Flag, Query(alias="dryRun", include_in_schema=False)] = False,
) -> Response:
    """Edit or enlarge a picture. Errors are ApiError; once a stream has begun they are events."""
    state: State = request.app.state.darkroom
    length = announced(request)
    if length is not None and length > state.config.gateway.max_body_bytes:
        length = None  # it will be refused for that, and not because of others
    try:
        with state.load.admit(length, grant_of(request).id) as reservation:
            return await _edit(request, state, reservation, dry=dry_run or dry_run_alias)
    except (ServerOverloaded, ImagingBusy) as error:
        raise errors.overloaded(error.limit, kept=error.kept) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """What is left of a request once its job goes on. What was sent is the job's, which lets go of it when it can."""

    job_ref: JobRef
    order: JobSpec
    delivery: ResponseOptions
    stream: bool
    deadline_s: float


async def _edit(request: Request, state: State, reservation: Reservation, *, dry: bool) -> Response:
    begun = await _begin(request, state, reservation, dry=dry)
    if isinstance(begun, Response):
        return begun
    job_ref, delivery = begun.job_ref, begun.delivery
    links = FileUrls.of(state, state.config.gateway.public_url or origin_of(request))
    if begun.order.mode == "background":
        return await accepted(request, state, begun.order, job_ref)
    key = begun.order.key
    let_go = await _room(state, job_ref, key)
    caller = ClientConnection(request, state.jobs, job_ref)
    until = state.jobs.clock.now() + begun.deadline_s + _END_S
    if begun.stream:

        def close(delivered: bool) -> None:
            let_go()
            caller.close(delivered=delivered)

        return EventStream(
            _events(state, caller, job_ref, delivery, until, links, key, let_go),
            keep_alive=state.config.gateway.keep_alive_s,
            headers=results.job_headers(job_ref),
            gone=lambda: caller.gone,
            closed=close,
        )
    try:
        finished, delivered, notes = await _result(state, caller, job_ref, delivery, until, links)
    except BaseException as error:
        let_go()
        caller.close(delivered=isinstance(error, ApiError))
        if isinstance(error, ClientDisconnected):
            return Response(status_code=499)  # nobody reads it; nginx' word for that in the log
        raise
    results.count(job_ref, finished, delivered)
    counted = state.load.paid(_inside(delivered), key)
    let_go()

    def closed(whole: bool) -> None:
        counted()
        caller.close(delivered=whole)

    return results.answer(job_ref, finished, delivered, notes, closed)


async def _room(state: State, job_ref: JobRef, key: str) -> Callable[[], None]:
    """Count what a repeated call is to be given of a job that has ended, before it is read. Raises ServerOverloaded.

    What is made for the call itself is paid, and is never turned away.
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


def _inside(delivered: Sequence[results.ImageResult]) -> int:
    """The bytes of pictures that are in an answer."""
    return sum(len(item.image.data) for item in delivered if item.inside)


async def _begin(request: Request, state: State, reservation: Reservation, *, dry: bool) -> _Started | Response:
    """Read a request and have its job begun, or found; or answer it at once.

    Raises ApiError, ServerOverloaded and ImagingBusy.
    """
    settings = state.config.gateway
    form = known(
        await _form(request, settings, reservation), {settings.public_url or origin_of(request), origin_of(request)}
    )
    reservation.begin()
    api_key = grant_of(request)
    routing = request.headers.get("x-darkroom-routing")
    asked = read_fields(form, state.config, api_key=api_key, routing=routing, dry=dry)
    request.scope["darkroom.model"] = asked.model.id
    _check_webhook(asked, state)
    check_addresses(asked, state.fetching.url_policy)
    repeat = await read_repeat(request, form)
    deadline_s = asked.model.deadline_s or settings.deadline_s
    mode_of(request, asked)  # what it refuses is told before any picture is looked at
    job_ref: JobRef | None = None
    if form.addressed:
        state.fetching.check(form)
        # A call that repeats another has its job without its pictures: they may be gone from where they were.
        order = order_of(request, asked, repeat, (), deadline_s, keep=False)
        job_ref = None if dry else await _place(state, api_key, order, (), repeat.retry)
    if job_ref is None:
        try:
            form = await _fetched(request, state, form, reservation)
        except ClientDisconnected:
            return Response(status_code=499)
        asked = await read_pictures(asked, form, state.imaging, api_key.id)
        metrics.BYTES_IN.inc(sum(len(image.data) for image in asked.request.images))
        choice = _allowed(_choice(asked, state), api_key)
        fitting = _within_limits(asked, choice, settings)
        # A picture that a dry run only describes has no bytes to be made ready.
        if not dry or all(image.data for image in asked.request.images):
            fitting = await sending.ready(fitting, asked.request, state.imaging, api_key.id)
        if dry:
            return submission.answer(asked, fitting)
        order = order_of(request, asked, repeat, fitting.candidates, deadline_s, keep=settings.keep_parameters)
        if await is_gone(request):
            # It may have waited for this process for so long that its caller has repeated it elsewhere since. Whoever
            # is gone is told of no job, so that none may be begun.
            return Response(status_code=499)
        job_ref = await _place(state, api_key, order, fitting.candidates, repeat.retry)
        if job_ref is None:
            if not choice.candidates or _unsendable(fitting):
                raise problems.no_route(asked.model, fitting)
            raise _output_too_large(asked, choice.candidates, settings)
    state.jobs.when_over(job_ref.id, reservation.detach())
    return _Started(
        job_ref=job_ref, order=order, delivery=ResponseOptions.of(asked), stream=asked.stream, deadline_s=deadline_s
    )


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
    """How many bytes the body has, as its head says; None where it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None


async def _fetched(request: Request, state: State, form: Form, reservation: Reservation) -> Form:
    """The form with its pictures in it.

    Raises ApiError, ServerOverloaded, and ClientDisconnected where the caller leaves meanwhile.
    """
    if not form.addressed:
        return form
    # A few bytes name a file of many: it counts before it is read, and not when it is here.
    form = await taken(state, form, reservation.add)
    sent = sum(len(file.data) for file in form.files)
    whole = await unless_gone(request, state.fetching.fetched(form, grant_of(request).id))
    reservation.add(sum(len(file.data) for file in whole.files) - sent)
    return whole


def _choice(asked: EditRequest, state: State) -> Choice:
    try:
        return choose(
            asked.model,
            asked.request,
            state.conditions(asked.model),
            preferences=asked.preferences,
            strategy=state.config.gateway.strategy,
            tell=state.config.gateway.undeclared != "pass",
        )
    except InvalidValue as error:
        raise ApiError(400, error.message, param=error.param, code=error.code) from None


def _allowed(choice: Choice, api_key: ApiKey) -> Choice:
    """Without the routes to providers that the key may not reach. Raises ApiError where it may reach none of them."""
    kept = [candidate for candidate in choice.candidates if api_key.allows_provider(candidate.route.provider)]
    if choice.candidates and not kept:
        names = ", ".join(sorted(api_key.providers or ()))
        message = f"No route of this model is at a provider that this key may use: {names}."
        raise ApiError(403, message, param="model", code="provider_not_allowed")
    return Choice(candidates=kept, excluded=choice.excluded)


def _check_webhook(asked: EditRequest, state: State) -> None:
    if asked.webhook_url is None:
        return
    try:
        state.fetching.url_policy.check(asked.webhook_url)
    except UrlForbidden as reason:
        raise invalid("webhook_url", f"Invalid 'webhook_url': {reason}.") from None


async def _place(
    state: State, api_key: ApiKey, order: JobSpec, candidates: Sequence[Candidate], retry: int
) -> JobRef | None:
    """The call's job. A call that repeats another has its job also where no route would serve it now; else None."""
    try:
        if candidates:
            if order.idempotency_key is None and retry == 0:
                await state.authenticator.afford(api_key, order.reserve)
            return await state.jobs.place(order, candidates, retry=retry)
        return await state.jobs.repeated(order, retry)
    except problems.UNPLACED as error:
        raise problems.told(error) from error


async def _result(
    state: State, caller: ClientConnection, job_ref: JobRef, delivery: ResponseOptions, until: float, links: FileUrls
) -> tuple[JobResult, list[results.ImageResult], list[str]]:
    """Wait for the job and bring its pictures into the asked form. Raises ApiError, and ClientDisconnected."""
    try:
        finished = await caller.wait(until)
    except problems.UNDONE as error:
        raise problems.told(error, job_ref, leaving=state.jobs.let_go.is_set()) from error
    if (missing := await incomplete(delivery, finished, links)) is not None:
        raise missing
    return finished, *await deliver(delivery, finished, links)


async def _events(
    state: State,
    caller: ClientConnection,
    job_ref: JobRef,
    delivery: ResponseOptions,
    until: float,
    links: FileUrls,
    key: str,
    let_go: Callable[[], None],
) -> AsyncIterator[Sequence[BodyPart]]:
    try:
        finished, delivered, notes = await _result(state, caller, job_ref, delivery, until, links)
        counted = state.load.paid(_inside(delivered), key)
    except ClientDisconnected:
        return
    finally:
        let_go()
    try:
        results.count(job_ref, finished, delivered)
        for item in delivered:
            yield results.completed(job_ref, finished, item, notes)
    finally:
        counted()


def _within_limits(asked: EditRequest, choice: Choice, settings: GatewaySettings) -> Choice:
    """Without the routes whose pictures would be too large: one with larger steps only does not spoil the others."""
    param = _sizing(asked)
    large = [
        Excluded(route=candidate.route, reason=f"would make {size}, above the limit of pixels", param=param)
        for candidate in choice.candidates
        if (size := _too_large(candidate, settings)) is not None
    ]
    fitting = [candidate for candidate in choice.candidates if _too_large(candidate, settings) is None]
    return Choice(candidates=fitting, excluded=[*choice.excluded, *large])


def _unsendable(choice: Choice) -> bool:
    """Whether a route that would have done cannot be sent the picture."""
    return any(one.param == "image" for one in choice.excluded)


def _too_large(candidate: Candidate, settings: GatewaySettings) -> Size | None:
    """The size of a candidate's pictures that is above the limits; None where they keep to them."""
    most, plan = settings.max_output_pixels, candidate.plan
    most_a_side = _most_a_side(plan, settings)
    # With fit the size that is asked for is a bound: the result may be as wide, or as high.
    asked = [(step.size, most_a_side) for step in plan.finish if isinstance(step, Resize)]
    sides = ((plan.output or plan.likely, settings.max_side), (plan.delivered, most_a_side), *asked)
    return next(
        (size for size, side in sides if size and (size.pixels > most or max(size.width, size.height) > side)), None
    )


def _most_a_side(plan: Plan, settings: GatewaySettings) -> int:
    """The longest side of a picture that is delivered: some formats take less than the limit."""
    formats = [step.format for step in plan.finish if isinstance(step, Transcode)]
    return min([settings.max_side, *(MAX_SIDE[name] for name in formats[-1:] if name in MAX_SIDE)])


def _output_too_large(asked: EditRequest, candidates: Sequence[Candidate], settings: GatewaySettings) -> ApiError:
    found = [(size, one.plan) for one in candidates if (size := _too_large(one, settings)) is not None]
    size, plan = min(found, key=lambda pair: pair[0].pixels)
    limit = f"{settings.max_output_pixels / 1e6:g} megapixels and {_most_a_side(plan, settings)} pixels a side"
    message = f"The picture would be {size} ({size.megapixels:.1f} megapixels); the limit is {limit}."
    return ApiError(400, message, param=_sizing(asked), code="output_too_large")


def _sizing(asked: EditRequest) -> str:
    """The parameter that the caller sized the picture with."""
    scaled_by = asked.model.scaled_by
    return scaled_by if scaled_by is not None and scaled_by in asked.request.params else "size"
