"""A process with few file handles lets in no more than it can serve: whoever buys a picture gets it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from typing_extensions import override
from uvicorn.server import ServerState

from gateway import process
from gateway.http.server import ConnectionLimits, LimitedHttpProtocol
from tests.chaos.gateway import PATIENCE
from tests.chaos.providers import clouds
from tests.simulators.common import tiny
from tests.support.hooked import ask, caller, ended
from tests.support.running import COMMAND, serving, until

_HANDLES = 96
_PLACES = process.bounded(2000, _HANDLES)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit of util-linux")
@pytest.mark.parametrize("callers", [2 * _PLACES - 1, 5 * _PLACES])
def test_what_is_let_in_is_served(tmp_path: Path, callers: int) -> None:
    """Each of many callers at once has its picture, or was told at the door to come again. Only where there are more
    than twice as many as places some may be cut off before they can be told. Nothing is bought for them."""
    command = ("prlimit", f"--nofile={_HANDLES}:{_HANDLES}", *COMMAND)
    with (
        clouds("fal", run_s=1.0) as there,
        serving(tmp_path, (), {**PATIENCE, **there.environ}, command=command) as served,
        ThreadPoolExecutor(callers) as pool,
    ):
        came = list(pool.map(lambda _: one(served.root), range(callers)))
        answers = [answer for answer in came if answer is not None]
        good = [answer for answer in answers if answer.status_code == 200]
        bad = {answer.json()["error"]["code"] for answer in answers if answer.status_code != 200}

        assert 1 <= len(good) == len(there.bills())
        assert len(answers) > len(good)
        assert len(answers) == callers or callers > 2 * _PLACES
        assert bad <= {"overloaded"}
        assert "Too many open files" not in served.log.read_text()
        jobs = []
        for _ in range(callers):  # jobs in the background need no connection of their caller's, and are bounded too
            with caller(served.root) as client:
                answer = ask(client, background="true")
            jobs += [answer.json()["id"]] if answer.status_code == 202 else []
        with caller(served.root) as client:
            assert {ended(client, job)["status"] for job in jobs} == {"completed"}


def one(root: str) -> httpx.Response | None:
    """One call; None where the connection was cut."""
    data = {"model": "clarity-upscaler", "prompt": "a cup"}
    files = {"image": ("in.png", tiny())}
    try:
        return httpx.post(f"{root}/openai/v1/images/edits", data=data, files=files, timeout=60)
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        return None


def test_strangers_that_hold_every_connection(tmp_path: Path) -> None:
    """Who has a connection and asks for nothing makes room for who does."""
    environ = {"DARKROOM_GATEWAY__MAX_CONNECTIONS": "20", "DARKROOM_GATEWAY__HEADER_TIMEOUT_S": "60"}
    with serving(tmp_path, (), {**environ, "DARKROOM_PROVIDERS__LOCAL__WORKERS": "[]"}, ready=503) as served:
        place = httpx.URL(served.root)
        with ExitStack() as stack:
            for number in range(20):
                stranger = stack.enter_context(socket.create_connection((place.host, place.port or 0)))
                stranger.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"\r\n" * (number % 2))
            until(lambda: _alive(served.root), "somebody else is let in")
            assert all(_alive(served.root) for _ in range(10))


def _alive(root: str) -> bool:
    try:
        return httpx.get(f"{root}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("asks", [False, True])
async def test_who_makes_room(asks: bool) -> None:
    """A connection whose request has come, and was not read yet as the process was busy, is none without a request."""

    made: asyncio.Queue[LimitedHttpProtocol] = asyncio.Queue()

    class Told(LimitedHttpProtocol):
        @override
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            made.put_nowait(self)

    config, state = uvicorn.Config(Starlette()), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(
        lambda: Told(config, state, {}, patience=ConnectionLimits(max_connections=1)), "127.0.0.1", 0
    ) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            one = await made.get()
            one._quiet_since -= 10.0
            if asks:
                client.sendall(b"GET / HTTP/1.1\r\n")
            one._make_room()
            assert one.transport.is_closing() is not asks
            one.transport.abort()
