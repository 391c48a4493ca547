"""`POST /images/edits`: the main job, from the body to the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.api import dry_run, failures, reply
from gateway.api.dry_run import is_dry_run
from gateway.api.errors import ApiError
from gateway.api.form import Form, FormLimits, read_form
from gateway.api.request import Asked, read_request
from gateway.api.stream import Events
from gateway.jobs.execute import AllFailed, Finished
from gateway.jobs.files import StoreFailed
from gateway.jobs.job import Job
from gateway.routing.select import Candidate, Choice, Excluded, choose
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from normalization.coerce import Invalid
from normalization.values import Image, Size


async def edit(request: Request) -> Response:
    """Edit or enlarge a picture. Errors are ApiError; once a stream has begun they are events."""
    state: State = request.app.state.darkroom
    form = await _form(request, state.config.gateway)
    dry = is_dry_run(request.query_params)
    routing = request.headers.get("x-darkroom-routing")
    asked = await read_request(form, state.config, state.imaging, routing=routing, dry=dry)
    metrics.BYTES_IN.inc(sum(len(image.data) for image in asked.request.images))
    request.scope["darkroom.model"] = asked.model.id
    choice = _choice(asked, state)
    fitting = _within_limits(asked, choice, state.config.gateway)
    if dry:
        return dry_run.answer(asked, fitting)
    if not choice.candidates:
        raise failures.no_route(asked.model, choice)
    if not fitting.candidates:
        raise _output_too_large(asked, choice.candidates, state.config.gateway)
    job = state.jobs.start(fitting.candidates, deadline_s=asked.model.deadline_s)
    origin = state.config.gateway.public_url or _origin(request)
    if asked.stream:
        events = _events(asked, job, state, origin)
        return Events(events, keep_alive=state.config.gateway.keep_alive_s, headers={"x-darkroom-job": job.id})
    try:
        finished = await job.wait()
    except AllFailed as failure:
        error = failures.failed(failure)
        error.headers = {**error.headers, "x-darkroom-job": job.id}
        raise error from failure
    if finished.partial and asked.request.params.get("require_all"):
        raise await _incomplete(finished, state, origin)
    delivered, notes = await _deliver(asked, finished, state, origin)
    return reply.answer(asked, job, finished, delivered, notes)


async def _form(request: Request, settings: GatewaySettings) -> Form:
    limits = FormLimits(max_body_bytes=settings.max_body_bytes, max_file_bytes=settings.max_upload_bytes)
    length = request.headers.get("content-length", "")
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await read_form(
                request.headers.get("content-type", ""),
                int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None,
                request.stream(),
                limits,
            )
    except TimeoutError:
        message = f"The request's body did not arrive within {settings.body_timeout_s:g} seconds."
        raise ApiError(408, message, code="request_timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "The connection ended before the body did.", code="truncated_body") from None


def _choice(asked: Asked, state: State) -> Choice:
    try:
        return choose(
            asked.model,
            asked.request,
            state.conditions(asked.model),
            wish=asked.wish,
            strategy=state.config.gateway.strategy,
        )
    except Invalid as error:
        raise ApiError(400, error.message, param=error.param, code=error.code) from None


def _within_limits(asked: Asked, choice: Choice, settings: GatewaySettings) -> Choice:
    """Without the routes whose pictures would be too large: one with larger steps only does not spoil the others."""
    param = _sizing(asked)
    large = [
        Excluded(route=candidate.route, reason=f"would make {size}, above the limit of pixels", param=param)
        for candidate in choice.candidates
        if (size := _too_large(candidate, settings)) is not None
    ]
    fitting = [candidate for candidate in choice.candidates if _too_large(candidate, settings) is None]
    return Choice(candidates=fitting, excluded=[*choice.excluded, *large])


def _too_large(candidate: Candidate, settings: GatewaySettings) -> Size | None:
    """The size of a candidate's pictures that is above the limits; None where they keep to them."""
    most, side = settings.max_output_pixels, settings.max_side
    sizes = (size for size in (candidate.plan.output, candidate.plan.delivered) if size is not None)
    return next((size for size in sizes if size.pixels > most or max(size.width, size.height) > side), None)


def _output_too_large(asked: Asked, candidates: Sequence[Candidate], settings: GatewaySettings) -> ApiError:
    sizes = [size for candidate in candidates if (size := _too_large(candidate, settings)) is not None]
    size = min(sizes, key=lambda size: size.pixels)
    limit = f"{settings.max_output_pixels / 1e6:g} megapixels and {settings.max_side} pixels a side"
    message = f"The picture would be {size} ({size.megapixels:.1f} megapixels); the limit is {limit}."
    return ApiError(400, message, param=_sizing(asked), code="output_too_large")


def _sizing(asked: Asked) -> str:
    """The parameter that the caller sized the picture with."""
    scaled_by = asked.model.scaled_by
    return scaled_by if scaled_by is not None and scaled_by in asked.request.params else "size"


async def _events(asked: Asked, job: Job, state: State, origin: str) -> AsyncIterator[Sequence[bytes]]:
    try:
        finished = await job.wait()
    except AllFailed as failure:
        raise failures.failed(failure) from failure
    if finished.partial and asked.request.params.get("require_all"):
        raise await _incomplete(finished, state, origin)
    delivered, notes = await _deliver(asked, finished, state, origin)
    reply.count(asked, finished, delivered)
    for item in delivered:
        yield reply.completed(asked, job, finished, item, notes)


async def _deliver(
    asked: Asked, finished: Finished, state: State, origin: str
) -> tuple[list[reply.Delivered], list[str]]:
    """Bring the pictures into the asked form. A stream's events always carry base64, as OpenAI's do."""
    form = asked.response_format
    wants_url = form == "url" or (form == "both" and (not asked.stream or "response_format" in asked.request.params))
    delivered: list[reply.Delivered] = []
    notes: list[str] = []
    for image in finished.pictures:
        url = await _keep(image, state, origin) if wants_url else None
        if wants_url and url is None:
            notes = ["The picture could not be kept for its address; it is delivered as base64 only."]
        as_base64 = asked.stream or url is None or form != "url"
        delivered.append(await reply.encode(image, "both" if as_base64 else "url", url))
    return delivered, notes


async def _incomplete(finished: Finished, state: State, origin: str) -> ApiError:
    """Fewer pictures than the caller insists on: an error, with the addresses of those that were made and paid."""
    urls = [await _keep(image, state, origin) for image in finished.pictures]
    return failures.incomplete(finished, [url for url in urls if url is not None])


async def _keep(image: Image, state: State, origin: str) -> str | None:
    """The address of a picture in the file store; None where it cannot be stored: the picture is not lost for that."""
    try:
        return f"{origin}/files/{await state.files.put(image)}"
    except StoreFailed as error:
        event("files.put_failed", logging.ERROR, error=str(error))
        return None


def _origin(request: Request) -> str:
    """Scheme, host and port that this caller used: its answer alone is addressed with them."""
    return f"{request.url.scheme}://{request.url.netloc}"
