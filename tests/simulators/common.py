"""What the simulated providers share: a server in a thread, faults on demand, books, a picture that really grows."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import uvicorn
from PIL import Image as Pillow
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from tests.support.ports import listener

Op: TypeAlias = Literal["submit", "job", "poll", "result", "download", "upload", "cancel", "list"]
Kind: TypeAlias = Literal["answer", "hang", "cut", "cut_within", "drip", "truncate", "endless", "job", "echo"]

_FOREVER_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one request.

    `answer` gives `status`, `body` (bytes, text, or something for JSON) and `headers`. `hang` never answers, `cut`
    breaks the connection before the answer and `cut_within` in the middle of it, `drip` sends one byte each `seconds`,
    `truncate` sends half of the body as if it were whole, `endless` never stops. With `after` the request is carried
    out before its answer goes wrong: a submit is taken. `job` is what becomes of a job, in `word`: the simulator's own.
    `echo` answers `status` with what it was sent, first the `word`: "headers" or "body".
    """

    kind: Kind = "answer"
    status: int = 500
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    seconds: float = 0.05
    word: str = ""


def html(status: int) -> Fault:
    """What a proxy says in the provider's place."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>nginx</body></html>"
    return Fault(status=status, body=page.encode(), headers={"content-type": "text/html"})


class Faults:
    """The faults that the next requests of each kind meet, in order; after them all goes well."""

    def __init__(self) -> None:
        self._next: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self.keys: dict[str, Fault] = {}
        """Keys that a submit is not taken with, each with what it meets; for all else they are good."""
        self.refused: Counter[str] = Counter()
        """How many submits came with each of them."""

    def script(self, op: Op, *faults: Fault | None) -> None:
        """Let the next requests of this kind go wrong like this, one after another; None goes well."""
        self._next[op].extend(faults)

    def always(self, op: Op, fault: Fault) -> None:
        """Let each request of this kind go wrong like this, once the script is over."""
        self._always[op] = fault

    def clear(self) -> None:
        self._next.clear()
        self._always.clear()

    def next(self, op: Op, headers: Mapping[str, str] | None = None) -> Fault | None:
        """Return what goes wrong with the request that is here now, in its turn, or for the key in its headers."""
        given = f"{headers.get('authorization', '')} {headers.get('x-api-key', '')}" if headers else ""
        for key, fault in self.keys.items() if op == "submit" else ():
            if key in given:
                self.refused[key] += 1
                return fault
        waiting = self._next[op]
        return waiting.popleft() if waiting else self._always.get(op)


@dataclass
class Books:
    """What the provider counts: the truth of every test about money."""

    taken: list[str] = field(default_factory=list)
    """The ids of all jobs it has taken."""
    bills: dict[str, float] = field(default_factory=dict)
    """US dollars, for each job that cost something."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of everything that came."""

    @property
    def billed(self) -> int:
        """How many jobs cost something."""
        return len(self.bills)

    def count(self, method: str, part: str) -> int:
        """How many requests of this method had this in their path."""
        return sum(1 for m, path in self.requests if m == method and part in path)


class _Server(uvicorn.Server):
    """A server in a thread: the signals are pytest's, and it ends at once, with all that hangs."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        await super().startup(sockets)

    @override
    async def main_loop(self) -> None:
        await self._end.wait()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._drop()

    def end(self) -> None:
        """End it, from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end.set)

    def drop(self) -> None:
        """Break all connections, and end all that was begun for them; from another thread."""
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(10)

    async def _drop(self) -> None:
        keep = {self._main, asyncio.current_task()}
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        while (left := asyncio.all_tasks() - keep) or self.server_state.connections:
            for task in left:
                task.cancel()
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Served:
    """A running app. `origin` is `host:port`, as a guard's list takes it."""

    url: str
    origin: str
    drop: Callable[[], None] = lambda: None
    """Break all connections and end what still works on them; returns once nothing does."""


_listeners: list[list[bytes]] = []


@contextmanager
def overheard() -> Iterator[list[bytes]]:
    """The bodies of all requests that any simulator answers until the block ends."""
    heard: list[bytes] = []
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners.remove(heard)


@contextmanager
def serve(app: ASGIApp, *, at: tuple[str, int] = ("127.0.0.1", 0), **settings: Any) -> Iterator[Served]:
    """Run an ASGI app on a free port of the loopback, or `at` a given one, in a thread.

    `settings` go to uvicorn: `ssl_certfile` for one.
    """

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["server"] = server
        whole: list[bytes] = []

        async def receiving() -> Message:
            message = await receive()
            whole.append(message.get("body", b""))
            return message

        try:
            await app(scope, receiving, send)
        finally:
            for heard in _listeners:
                heard.append(b"".join(whole))

    listening = listener(*at)
    settings = {"lifespan": "off", "log_config": None, "ws": "none", **settings}
    server = _Server(uvicorn.Config(outer, **settings))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.005)
        origin = f"{at[0]}:{listening.getsockname()[1]}"
        yield Served(
            url=f"{'https' if 'ssl_certfile' in settings else 'http'}://{origin}", origin=origin, drop=server.drop
        )
    finally:
        server.end()
        thread.join(10)
        listening.close()


def hang_up(request: Request) -> None:
    """Break the connection of this request, without a word."""
    server: uvicorn.Server = request.state.server
    for connection in list(server.server_state.connections):
        if getattr(connection, "client", None) == tuple(request.scope["client"]):
            connection.transport.abort()


async def play(request: Request, fault: Fault | None, carry_out: Callable[[], Awaitable[Response]]) -> Response:
    """Answer a request, the way its fault says. The body is read in any case, as by a server that is alive."""
    await request.body()
    if fault is None or fault.kind == "job":
        return await carry_out()
    if fault.after or fault.kind in {"cut_within", "drip", "truncate"}:
        good = await carry_out()
    if fault.kind == "hang":
        await asyncio.sleep(_FOREVER_S)
    if fault.kind == "cut":
        hang_up(request)
        await asyncio.sleep(_FOREVER_S)
    if fault.kind == "answer":
        return _answer(fault)
    if fault.kind == "echo":
        return _echo(request, await request.body(), fault)
    if fault.kind == "endless":
        return StreamingResponse(_endless(), media_type="image/png")
    body = bytes(good.body)
    if fault.kind == "truncate":
        return Response(body[: len(body) // 2], good.status_code, media_type=good.media_type)
    stream = _half(request, body) if fault.kind == "cut_within" else _drip(body, fault.seconds)
    headers = {"content-length": str(len(body))}
    return StreamingResponse(stream, good.status_code, headers, media_type=good.media_type)


def _answer(fault: Fault) -> Response:
    headers = dict(fault.headers)
    if isinstance(fault.body, bytes | str):
        return Response(fault.body, fault.status, headers)
    return JSONResponse(fault.body, fault.status, headers)


def _echo(request: Request, body: bytes, fault: Fault) -> Response:
    keys = {name: value for name, value in request.headers.items() if name in ("authorization", "x-api-key")}
    headers, sent = f"we got {keys} at {request.url}", f"we got {body[:4000].decode(errors='replace')}"
    said = f"{headers}, {sent}" if fault.word == "headers" else f"{sent}, {headers}"
    document = {"detail": said, "error": said, "message": said, "title": said, "errors": [said], "status": "FAILED"}
    return JSONResponse(
        document, fault.status, {**{f"x-echo-{name}": text for name, text in keys.items()}, **fault.headers}
    )


async def _half(request: Request, body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.sleep(0.05)
    hang_up(request)
    await asyncio.sleep(_FOREVER_S)


async def _drip(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    for at in range(len(body)):
        yield body[at : at + 1]
        await asyncio.sleep(seconds)


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(65536)
        # To a connection that is gone everything is sent at once.
        await asyncio.sleep(0)


def enlarge(data: bytes, factor: float, kind: str = "png", *, first: float | None = None) -> bytes:
    """Do what the provider is paid for: the picture, `factor` times as large a side.

    With `first` its longer side is brought to so many pixels before, whether that is more or less.
    """
    with Pillow.open(io.BytesIO(data)) as picture:
        before = 1 if first is None else first / max(picture.size)
        source = (max(1, round(picture.width * before)), max(1, round(picture.height * before)))
        size = (max(1, round(source[0] * factor)), max(1, round(source[1] * factor)))
        larger = picture.convert("RGB").resize(size, Pillow.Resampling.LANCZOS)
    made = io.BytesIO()
    larger.save(made, "jpeg" if kind == "jpg" else kind)
    return made.getvalue()


def first_of(given: Mapping[str, Any]) -> float | None:
    """To what Clarity, asked like this, brings the longer side before it enlarges: 768 where no length is given."""
    return float(given.get("downscaling_resolution", 768)) if given.get("downscaling") else None


def square(data: bytes) -> bytes:
    """The middle of a picture: of another shape than the whole."""
    with Pillow.open(io.BytesIO(data)) as picture:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        made = io.BytesIO()
        picture.crop((left, top, left + side, top + side)).save(made, picture.format)
    return made.getvalue()


def tiny(width: int = 24, height: int = 16, colour: tuple[int, int, int] = (200, 90, 30)) -> bytes:
    """A picture that costs a test nothing."""
    made = io.BytesIO()
    Pillow.new("RGB", (width, height), colour).save(made, "png")
    return made.getvalue()


def size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of a picture that decodes as a whole."""
    with Pillow.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture.size
