"""A scripted Cog server over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pybase64
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.ports import listener

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))

Play: TypeAlias = "Callable[[FakeCog, str, dict[str, Any]], Awaitable[Response]]"


def data_uri(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{pybase64.b64encode_as_string(data)}"


def succeeded(output: object, seconds: float = 1.5) -> Response:
    return JSONResponse({"status": "succeeded", "output": output, "metrics": {"predict_time": seconds}})


async def echo(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
    """Answer with the picture that was sent."""
    return succeeded(given.get("image", data_uri(PNG)))


async def hold(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
    """Work until cancelled, as Cog does: the answer then is 200 and says so."""
    await cog.cancels(job).wait()
    return JSONResponse({"status": "canceled"})


def after(seconds: float) -> Play:
    async def play(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
        await asyncio.sleep(seconds)
        return succeeded(data_uri(PNG))

    return play


def answer(status: int, body: object, headers: dict[str, str] | None = None) -> Play:
    async def play(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
        if isinstance(body, bytes):
            return Response(body, status, headers)
        return JSONResponse(body, status, headers)

    return play


async def cut(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
    """Break the connection before an answer."""
    cog.break_connections()
    await asyncio.sleep(3600)
    raise AssertionError


async def cut_within(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
    """Break the connection in the middle of the answer."""

    async def body() -> AsyncIterator[bytes]:
        yield b'{"status": "succeeded", "out'
        await asyncio.sleep(0.05)
        cog.break_connections()

    return StreamingResponse(body(), headers={"content-length": "5000"})


@dataclass
class FakeCog:
    """A Cog server that plays `plays` one after another, and `play` from then on; it writes down what reached it."""

    play: Play = echo
    plays: list[Play] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=lambda: {"status": "READY"})
    health_code: int = 200
    schema: dict[str, Any] | None = field(
        default_factory=lambda: {
            "info": {"title": "tile-diffusion"},
            "components": {"schemas": {"Input": {"properties": {"image": {}, "prompt": {}, "seed": {}}}}},
        }
    )
    jobs: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    looks: int = 0
    at_work: int = 0
    most_at_work: int = 0
    url: str = ""
    server: uvicorn.Server | None = None
    _cancels: dict[str, asyncio.Event] = field(default_factory=dict)

    def cancels(self, job: str) -> asyncio.Event:
        return self._cancels.setdefault(job, asyncio.Event())

    @property
    def connections(self) -> int:
        assert self.server
        return len(self.server.server_state.connections)

    def break_connections(self) -> None:
        assert self.server
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()

    async def on_health(self, request: Request) -> Response:
        self.looks += 1
        return JSONResponse(self.health, self.health_code)

    async def on_schema(self, request: Request) -> Response:
        if self.schema is None:
            return JSONResponse({"error": "OpenAPI schema not available"}, 503)
        return JSONResponse(self.schema)

    async def on_predict(self, request: Request) -> Response:
        job = request.path_params["job"]
        body = json.loads(await request.body())
        self.jobs.append(job)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            play = self.plays.pop(0) if self.plays else self.play
            return await play(self, job, body["input"])
        finally:
            self.at_work -= 1

    async def on_cancel(self, request: Request) -> Response:
        job = request.path_params["job"]
        self.cancelled.append(job)
        known = job in self._cancels
        self.cancels(job).set()
        return JSONResponse({}, 200 if known else 404)

    async def on_file(self, request: Request) -> Response:
        return Response(PNG, media_type="image/png")

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health-check", self.on_health),
                Route("/openapi.json", self.on_schema),
                Route("/predictions/{job}", self.on_predict, methods=["PUT"]),
                Route("/predictions/{job}/cancel", self.on_cancel, methods=["POST"]),
                Route("/files/{name}", self.on_file),
            ]
        )


class QuietServer(uvicorn.Server):
    """A server inside of a test: the signals are pytest's, and it ends at once."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await until(lambda: self.should_exit, 3600)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await until(lambda: not self.server_state.connections and not self.server_state.tasks)


@asynccontextmanager
async def served(cog: FakeCog) -> AsyncIterator[FakeCog]:
    """Serve it on a free port of the loopback until the block ends."""
    listening = listener()
    config = uvicorn.Config(cog.app, lifespan="off", log_config=None, ws="none")
    config.load()
    cog.server = server = QuietServer(config)
    server.lifespan = config.lifespan_class(config)
    cog.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    await server.startup(sockets=[listening])
    try:
        yield cog
    finally:
        await server.shutdown(sockets=[listening])
        listening.close()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something is true, and fail where it does not become so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what a test waits for is mostly on the far side of a socket
            await asyncio.sleep(0.002)
