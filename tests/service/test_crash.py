"""An error of our own: the caller gets the envelope, the log gets the trace, under one id."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api import routes
from gateway.auth.authenticator import Authenticator
from gateway.http.auth import GuardedRouter, Permission
from tests.support.keys import api_key
from tests.support.lines import Lines
from tests.support.running import until
from tests.support.world import World, world

SECRET = "what-only-the-operator-may-read"
KEY = api_key("one")
PAGE = "https://studio.example.org"


async def crash(request: Request) -> Response:
    """A handler with a mistake in it."""
    raise RuntimeError(SECRET)


async def crash_late(request: Request) -> Response:
    """One whose answer has begun."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError(SECRET)

    return StreamingResponse(pieces())


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A gateway with two handlers that crash."""
    router = GuardedRouter()
    router.serve("GET", "/v1/crash", Permission.KEY)(crash)
    router.serve("GET", "/v1/crash-late", Permission.KEY)(crash_late)
    monkeypatch.setattr(routes, "ROUTERS", [*routes.ROUTERS, router])
    with world(environ={"DARKROOM_API_KEYS": KEY, "DARKROOM_GATEWAY__CORS_ORIGINS": f'["{PAGE}"]'}) as started:
        yield started


def ask(there: World, path: str) -> httpx.Response:
    """Ask as a page's script does."""
    return httpx.get(f"{there.url}{path}", headers={"authorization": f"Bearer {KEY}", "origin": PAGE})


def is_told(answer: httpx.Response, lines: Lines, path: str) -> None:
    """The envelope says nothing of the inside; the log says all, once."""
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "message": "Internal server error. The server's log has the details under this request's id.",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert not [
        word for word in (SECRET, "Traceback", "RuntimeError", ".py") if word in f"{answer.headers}{answer.text}"
    ]
    id_ = answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"
    # Both lines are written when the answer is out, which is a moment after its client has it.
    until(lambda: any(line["event"] == "request" and line["request_id"] == id_ for line in lines), "it is in the log")
    [line] = [line for line in lines if line["event"] == "request.crashed"]
    assert (line["level"], line["request_id"], line["path"], line["exception"]) == ("error", id_, path, "RuntimeError")
    assert SECRET in line["trace"]
    assert "Traceback" in line["trace"]
    [request] = [line for line in lines if line["event"] == "request" and line["request_id"] == id_]
    assert request["status"] == 500


def test_a_handler_crashes(broken: World, lines: Lines) -> None:
    """A page's script may read the error too, and the server goes on."""
    answer = ask(broken, "/v1/crash")

    is_told(answer, lines, "/v1/crash")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert ask(broken, "/v1/models").status_code == 200


def test_the_gate_crashes(broken: World, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any handler: the last resort is the edge itself."""

    async def admit(authenticator: Authenticator, headers: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Authenticator, "admit", admit)

    is_told(ask(broken, "/v1/models"), lines, "/v1/models")


def test_a_crash_within_an_answer(broken: World, lines: Lines) -> None:
    """Nothing is written into what has begun: the connection ends, so that nobody takes it for whole."""
    with pytest.raises(httpx.RemoteProtocolError):
        ask(broken, "/v1/crash-late")

    until(lambda: any(line["event"] == "request" for line in lines), "it is in the log")
    assert [line["exception"] for line in lines if line["event"] == "request.crashed"] == ["RuntimeError"]
    assert SECRET not in json.dumps([line for line in lines if line["event"] != "request.crashed"])
