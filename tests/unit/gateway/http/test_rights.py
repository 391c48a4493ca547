"""Every route states its rights, nothing else decides them, and what is the admin's refuses others by itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from gateway.api import routes as handlers
from gateway.api.openapi import document
from gateway.api.paths import PREFIXES
from gateway.api.routes import paths, routers
from gateway.app import build
from gateway.auth.keys import ApiKey
from gateway.http.auth import GuardedPath, GuardedRoute, GuardedRouter, Permission, guarded_paths
from gateway.http.errors import ApiError
from gateway.http.host import check_path, plain_path
from gateway.http.middleware import RequestMiddleware
from gateway.settings.loader import SHIPPED, load
from tests.support.paths import ROOT

# The whole table, once more: a route whose rights change, or that is new, has to be thought of twice.
STATED = {
    ("/images/edits", "POST"): Permission.METERED,
    ("/images/jobs", "GET"): Permission.KEY,
    ("/images/jobs/{id}", "GET"): Permission.KEY,
    ("/images/jobs/{id}/cancel", "POST"): Permission.KEY,
    ("/keys", "GET"): Permission.ADMIN,
    ("/keys", "POST"): Permission.ADMIN,
    ("/keys/{id}", "GET"): Permission.ADMIN,
    ("/keys/{id}", "PATCH"): Permission.ADMIN,
    ("/keys/{id}", "DELETE"): Permission.ADMIN,
    ("/webhooks/secret", "GET"): Permission.KEY,
    ("/models", "GET"): Permission.KEY,
    ("/models/{id:path}", "GET"): Permission.KEY,
    ("/v1/requests", "GET"): Permission.KEY,
    ("/v1/requests/{id}", "GET"): Permission.KEY,
    ("/v1/requests/{id}/payload", "DELETE"): Permission.KEY,
    ("/hooks/{provider}/{attempt}/{mac}", "POST"): Permission.PUBLIC,
    ("/files/{name}", "GET"): Permission.PUBLIC,
    ("/metrics", "GET"): Permission.ADMIN,
    ("/healthz", "GET"): Permission.PUBLIC,
    ("/readyz", "GET"): Permission.OPTIONAL,
    ("/openapi.json", "GET"): Permission.KEY,
    ("/docs", "GET"): Permission.PUBLIC,
    ("/docs/page.css", "GET"): Permission.PUBLIC,
    ("/docs/page.js", "GET"): Permission.PUBLIC,
}

# Made by the application itself.
DOCUMENTS = {"/openapi.json", "/docs", "/docs/page.css", "/docs/page.js"}


@pytest.fixture(scope="module")
def served() -> list[GuardedPath]:
    """What an application has, the document included."""
    edge = build(load(SHIPPED, {}), {})
    app = edge._app  # type: ignore[attr-defined]
    # What Starlette itself has would be asked by nobody, and guarded by nobody.
    assert app.router.routes == []
    assert app.openapi_url is None
    return list(app.router.table)


def test_every_route_has_its_rights_stated(served: list[GuardedPath]) -> None:
    """Under each prefix the same; and nothing is served beside the table."""
    for prefix in PREFIXES:
        found = {
            (route.path if (route.path, method) in STATED else route.path.removeprefix(prefix), method): row.access
            for route in served
            for method, row in route.rows.items()
            if (route.path, method) in STATED or route.path.startswith(f"{prefix}/")
        }
        assert found == STATED
    assert {route.path for route in paths()} | DOCUMENTS == {route.path for route in served}


def test_each_path_is_one_routes(served: list[GuardedPath]) -> None:
    """No path has two routes, whose rights might differ."""
    for route in served:
        path = re.sub(r"\{[a-z]+(:path)?\}", "x", route.path)
        scope: Scope = {"type": "http", "path": path, "method": "GET"}
        assert [one.path for one in served if one.matches(scope)[0].value] == [route.path]


ADMINS = [
    pytest.param(row, id=f"{method} {route.path}")
    for route in paths()
    for method, row in route.rows.items()
    if row.access is Permission.ADMIN
]


@pytest.mark.parametrize("row", ADMINS)
async def test_what_is_the_admins_refuses_others_by_itself(row: GuardedRoute) -> None:
    """Were it let through by mistake, it would still do nothing; and nothing at all where nobody said whose it is."""
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "darkroom.grant": ApiKey(id="key_0")}
    with pytest.raises(ApiError) as caught:
        await row.endpoint(Request(scope))
    assert (caught.value.status, caught.value.code) == (403, "admin_key_required")

    del scope["darkroom.grant"]
    with pytest.raises(KeyError):
        await row.endpoint(Request(scope))


def test_a_route_without_rights_cannot_be_declared() -> None:
    """FastAPI's own decorators state no rights, and so declare nothing."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse(request.method)

    with pytest.raises(TypeError, match="rights"):
        GuardedRouter().get("/x")(answer)


async def test_the_rights_of_a_method() -> None:
    """HEAD is GET; a method that is not allowed takes what the strictest one does, and is told of them all."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse(request.method)

    router = GuardedRouter()
    router.serve("GET", "/x", Permission.KEY, any_host=True)(answer)
    router.serve("POST", "/x", Permission.ADMIN)(answer)
    [route] = guarded_paths([router])

    assert [route.access(method) for method in ("GET", "HEAD", "POST", "PUT")] == [
        Permission.KEY,
        Permission.KEY,
        Permission.ADMIN,
        Permission.ADMIN,
    ]
    assert not route.any_host

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    with pytest.raises(HTTPException) as caught:
        await route.handle({"type": "http", "path": "/x", "method": "PUT", "headers": [], "app": None}, receive, send)
    assert caught.value.status_code == 405
    assert caught.value.headers is not None
    assert set(caught.value.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_what_is_no_path() -> None:
    """A control character in any part of it; letters of every language are ordinary."""
    for path in ("/v1/keys\n", "/v1/\r\nkeys", "/\0", "/a\x7f", "/a\x85", "/\x1b[0m", "\t"):
        with pytest.raises(ApiError) as caught:
            check_path(path)
        assert (caught.value.status, caught.value.code) == (400, "invalid_url")
        assert caught.value.message.isprintable()
    for path in ("/", "/v1/models/größe", "/files/a b.png", "/\N{BOMB}", "/\ufffd", "/%0A", "*"):
        check_path(path)
    with pytest.raises(ApiError, match=r"%0A, as its character 9"):
        check_path("/v1/keys\n")


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (b"/v1/models", b"/v1/models"),
        (b"//v1///models//", b"/v1/models"),
        (b"/", b"/"),
        (b"///", b"/"),
        (b"/a/./../b/", b"/a/./../b"),
        (b"/a%2F/", b"/a%2F"),
        (b"/a/%2F//%2f/b", b"/a/%2F/%2f/b"),
        (b"*", b"*"),
        (b"", b""),
    ],
)
def test_slashes_that_name_nothing(raw: bytes, plain: bytes) -> None:
    """They go; what is escaped stays, and so what is plain stays plain."""
    assert plain_path(raw) == plain
    assert plain_path(plain) == plain


@given(st.lists(st.sampled_from(["v1", "keys", "images", "edits", "%2F", "%2e", "..", ".", "", "a b"]), max_size=8))
def test_a_path_is_that_of_its_plain_one(parts: list[str]) -> None:
    """Through the whole application the router sees what it would see of the plain path, and never more segments."""
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])

    names = [part for part in parts if part]
    edge = RequestMiddleware(inner, load(SHIPPED, {}).gateway)
    for raw in ("/" + "/".join(parts), "/" + "/".join(names)):
        path = {"raw_path": raw.encode(), "path": unquote(raw)}
        scope: Scope = {"type": "http", "method": "GET", "headers": [], "scheme": "http", "client": None, **path}
        asyncio.run(edge(scope, None, None))  # type: ignore[arg-type]
    assert seen == [unquote("/" + "/".join(names))] * 2


def test_only_the_router_looks_at_paths() -> None:
    """No module decides by the text of a path: two parsers of one path would be of two minds about it."""
    readers = {
        str(path.relative_to(ROOT))
        for path in Path(ROOT, "gateway").rglob("*.py")
        if re.search(r"""scope\[["'](raw_)?path["']\]|\.url\.path\b""", path.read_text())
    }
    # The edge refuses control characters, takes out slashes that name nothing and logs paths, an error says which path
    # it was, and a job's address has the prefix that its caller used.
    assert readers == {"gateway/http/middleware.py", "gateway/http/errors.py", "gateway/api/jobs.py"}


def test_the_document_has_the_parameters_of_the_table(served: list[GuardedPath]) -> None:
    """What a query may have is what the document says, but for the other spelling of a dry run."""
    operations = document(load(SHIPPED, {}), "0", routers())["paths"]
    for route in served:
        path = route.path.replace(":path", "")
        for method, row in route.rows.items():
            if path not in DOCUMENTS:
                given = operations[path][method.lower()]["parameters"]
                described = {one["name"] for one in given if one.get("in") == "query"}
                assert row.query is None or row.query - {"dryRun"} == described, path


def test_probes_are_the_only_rows_for_any_host() -> None:
    """Whoever asks for another path by another name is sent away where `allowed_hosts` is set."""
    assert {route.path for route in paths() if route.any_host} == {"/healthz", "/readyz"}
    assert {row.endpoint for route in paths() for row in route.rows.values() if row.rights.any_host} == {
        handlers.healthz,
        handlers.readyz,
    }
