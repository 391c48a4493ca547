"""The routes of Cog's HTTP API."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from providers.worker import body, metrics, schema, webhooks
from providers.worker.answers import StreamedAnswer, WorkerError, unprocessable
from providers.worker.predictions import Prediction, PredictionRunner

_INDEX = {
    "docs_url": "/openapi.json",
    "openapi_url": "/openapi.json",
    "healthcheck_url": "/health-check",
    "predictions_url": "/predictions",
    "predictions_idempotent_url": "/predictions/{prediction_id}",
    "predictions_cancel_url": "/predictions/{prediction_id}/cancel",
    "shutdown_url": "/shutdown",
}


class WorkerApi:
    """The HTTP handlers of one worker. `leave` is set when a client requests the shutdown, if that is allowed."""

    def __init__(
        self, worker: PredictionRunner, *, max_body: int, allow_webhooks: bool, allow_shutdown: bool = True
    ) -> None:
        self._worker = worker
        self._max_body = max_body
        self._allow_webhooks = allow_webhooks
        self._allow_shutdown = allow_shutdown
        self.leave = asyncio.Event()

    @property
    def app(self) -> Starlette:
        one = "/predictions/{id}"
        return Starlette(
            routes=[
                Route("/", self.index),
                Route("/health-check", self.health),
                Route("/openapi.json", self.openapi),
                Route("/metrics", self.metrics),
                Route("/predictions", self.create, methods=["POST"]),
                Route(one, self.create_once, methods=["PUT"]),
                Route(f"{one}/cancel", self.cancel, methods=["POST"]),
                *([Route("/shutdown", self.shutdown, methods=["POST"])] if self._allow_shutdown else []),
            ],
            middleware=[Middleware(_NoBrowsers)],
            exception_handlers={WorkerError: _refused},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # In the background: meanwhile the status is STARTING.
        loading = asyncio.create_task(self._worker.load())
        yield
        loading.cancel()

    async def index(self, request: Request) -> Response:
        return JSONResponse(_INDEX)

    async def health(self, request: Request) -> Response:
        worker = self._worker
        slots = {"max": worker.slots, "current": worker.taken}
        version = {"engine": worker.engine.version, "model": worker.engine.model}
        health = {"status": worker.status, "setup": worker.setup.describe(), "concurrency": slots, "version": version}
        return JSONResponse(health)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(schema.openapi(self._worker.engine, webhooks=self._allow_webhooks))

    async def metrics(self, request: Request) -> Response:
        worker = self._worker
        page = await asyncio.to_thread(worker.tally.render, worker.engine, worker.slots, worker.taken)
        return Response(page, media_type=metrics.CONTENT_TYPE)

    async def cancel(self, request: Request) -> Response:
        known = self._worker.cancel(request.path_params["id"])
        return JSONResponse({}, 200 if known else 404)

    async def shutdown(self, request: Request) -> Response:
        self.leave.set()
        return JSONResponse({})

    async def create(self, request: Request) -> Response:
        return await self._create(request, None)

    async def create_once(self, request: Request) -> Response:
        wanted: str = request.path_params["id"]
        if running := self._worker.running.get(wanted):
            return StreamedAnswer(running.answer(echo=True), 202)
        return await self._create(request, wanted)

    async def _create(self, request: Request, wanted: str | None) -> Response:
        self._worker.take()
        begun = False
        try:
            received = await self._receive(request)
            name = _id(received, wanted)
            hook = webhooks.wanted(received, allowed=self._allow_webhooks)
            prediction = await self._check(received, name)
            if running := self._worker.running.get(name):
                # The same id was sent twice concurrently, and the other request came first.
                return StreamedAnswer(running.answer(echo=True), 202)
            self._worker.begin(prediction)
            begun = True
            # Frees its images before the response.
            del received
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            if not begun:
                self._worker.release()
        if hook:
            self._worker.follow(asyncio.create_task(hook.follow(prediction)))
        # Compared exactly, as Cog does.
        if request.headers.get("prefer") == "respond-async":
            return JSONResponse({"id": name, "status": "starting"}, 202)
        await _ended(request, prediction)
        return StreamedAnswer(prediction.answer(), 422 if prediction.end and prediction.end.unfit else 200)

    async def _receive(self, request: Request) -> dict[str, object]:
        raw = await body.read(request, self._max_body)
        return body.parse(raw) if len(raw) < body.INLINE_BYTES else await asyncio.to_thread(body.parse, raw)

    async def _check(self, received: Mapping[str, object], name: str) -> Prediction:
        given = received.get("input")
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise unprocessable(["body", "input", "__root__"], "the input must be an object")
        checked = await asyncio.to_thread(schema.check, self._worker.engine.inputs, given)
        if checked.wrong:
            raise WorkerError(422, {"detail": checked.wrong})
        shown = {key: value for key, value in given.items() if not isinstance(checked.values.get(key), bytes)}
        prediction = Prediction(id=name, model=self._worker.engine.model, inputs=checked.values, shown=_plain(shown))
        if checked.ignored:
            prediction.logs.append(f"ignored, because {self._worker.engine.name} has no such input: {checked.ignored}")
        return prediction


async def _ended(request: Request, prediction: Prediction) -> None:
    """Wait for a prediction to end; cancel it if the client disconnects or the server shuts down first."""
    ended = asyncio.create_task(prediction.ended.wait())
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not prediction.ended.is_set():
            prediction.stop.set()
        gone.cancel()
        ended.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _id(received: Mapping[str, object], wanted: str | None) -> str:
    name = received.get("id")
    if name is None:
        return wanted or uuid.uuid4().hex
    if not isinstance(name, str):
        raise unprocessable(["body", "id"], "the id must be a string")
    if wanted is not None and name != wanted:
        raise unprocessable(["body", "id"], "prediction ID must match the ID supplied in the URL")
    return name


def _plain(value: object) -> dict[str, object]:
    """Return an input for a response that echoes it, without images."""
    assert isinstance(value, dict)
    return {key: item for key, item in value.items() if isinstance(item, bool | int | float | str) or item is None}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, WorkerError)
    return error.response()


class _NoBrowsers:
    """Refuses requests from web pages: any page can post to ports on its visitor's machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            refusal = WorkerError(403, "Requests from web browsers are not allowed")
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)
