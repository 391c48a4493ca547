"""Rights over HTTP: no spelling of a path gives a key more than the path itself does."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.api import routes as table
from gateway.api.routes import paths
from gateway.http.auth import GuardedPath, GuardedRouter, Permission
from tests.support.world import World, world

PLAIN, ADMIN = "the-key-of-one-caller-out-of-many", "the-key-of-the-admin-and-of-nobody-else"
# Each stands for a path with something behind it, before it or around it. These have a control character.
CONTROLS = ("{}%0A", "{}%0d%0a", "{}%00", "{}%7F", "{}%C2%85", "/%0A{}")
# Careless servers take these for the path itself.
OTHERS = ("{}%20", "{};x", "{}%2e", "{}/..", "{}%2F", "{}%2F/", "/%2F{}", "{}/%2F", "{}/%2e/")
# These are the path itself.
SLASHES = ("{}/", "{}//", "/{}", "///{}//")
REFUSALS = ("invalid_api_key", "admin_key_required", "unknown_url", "method_not_allowed", "invalid_url")
SAMPLES: Mapping[str, str] = {
    "{id}": "img_0",
    "{id:path}": "lanczos-bp",
    "{provider}": "fal",
    "{attempt}": "att_1",
    "{mac}": "0" * 64,
    "{name}": "none.png",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer's status, and its error's code."""

    status: int
    code: str | None
    message: str = field(default="", compare=False)

    @property
    def opened(self) -> bool:
        """Whether the endpoint itself answered. That of a forged webhook says that there is no such address."""
        return self.code not in REFUSALS or self.message == "There is no such address."


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """A gateway with keys."""
    with world(environ={"DARKROOM_API_KEYS": PLAIN, "DARKROOM_ADMIN_KEY": ADMIN}) as found:
        yield found


@pytest.fixture(scope="module")
def keys(there: World) -> dict[str, str]:
    """One key of each kind."""
    given = {"name": "limited", "rpm": 1}
    made = httpx.post(f"{there.url}/v1/keys", headers=bearer(ADMIN), json=given).raise_for_status().json()
    return {"none": "", "plain": PLAIN, "limited": made["key"], "admin": ADMIN}


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {key}"} if key else {}


@contextmanager
def bearing(there: World, key: str) -> Iterator[Callable[[str, str], Told]]:
    """Asks for paths as they stand: no library writes them anew. A POST has a body that would make an admin's key."""
    headers = {**bearer(key), "content-type": "application/json"}
    with closing(http.client.HTTPConnection(there.url.removeprefix("http://"), timeout=60)) as connection:

        def ask(method: str, path: str) -> Told:
            body = json.dumps({"name": "stolen", "admin": True}) if method == "POST" else None
            connection.request(method, path, body, headers)
            with connection.getresponse() as answer:
                text = answer.read()
                kind = answer.getheader("content-type", "")
            found = json.loads(text) if text and kind.startswith("application/json") else {}
            error = found.get("error", {})
            return Told(status=answer.status, code=error.get("code"), message=error.get("message", ""))

        yield ask


def path_of(route: GuardedPath) -> str:
    """A route's path with something for each of its names."""
    path = route.path
    for name, sample in SAMPLES.items():
        path = path.replace(name, sample)
    assert "{" not in path
    return path


# The same table stands under both prefixes.
ROUTES = [
    pytest.param(route, id=route.path, marks=[pytest.mark.slow] if route.path.startswith("/openai") else [])
    for route in paths()
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["none", "plain", "limited", "admin"])
def test_no_spelling_of_a_path_opens_more(there: World, keys: Mapping[str, str], route: GuardedPath, name: str) -> None:
    """Every route x every method x spellings x kinds of keys: never more than the plain path gives."""
    path = path_of(route)
    before = registered(there)
    with bearing(there, keys[name]) as ask:
        for method in {*route.rows, "GET"}:
            for spelling in CONTROLS:
                found = ask(method, spelling.format(path))
                assert (found.status, found.code) == (400, "invalid_url"), (method, spelling, found)
            spelt = {other: ask(method, other) for other in (path.upper(), *(one.format(path) for one in OTHERS))}
            opened = {other for other, found in spelt.items() if found.opened}
            if route.access(method) > Permission.OPTIONAL and name == "none":
                assert {found.status for found in spelt.values()} == {401}, (method, spelt)
            if route.access(method) is Permission.METERED:
                assert not opened, (method, spelt)
            if name != "admin":
                plain = ask(method, path)
                assert plain.opened or not opened, (method, plain, spelt)
                slashed = [
                    ask(method, one) for one in (*(spelling.format(path) for spelling in SLASHES), doubled(path))
                ]
                assert {one.opened for one in slashed} == {plain.opened}, (method, plain, slashed)
                if route.access(method) is not Permission.METERED:  # which counts, and ends, what a key may call
                    assert {(one.status, one.code) for one in slashed} == {(plain.status, plain.code)}
                if route.row(method) is not None:
                    assert plain.opened == may(name, route.access(method)), (method, plain)
    assert registered(there) == before


def doubled(path: str) -> str:
    """A path with two slashes in the place of each."""
    return path.replace("/", "//")


def may(name: str, access: Permission) -> bool:
    """Whether this kind of key opens what has this access."""
    return access <= (Permission.OPTIONAL if name == "none" else Permission.METERED)


def registered(there: World) -> set[str]:
    """The ids of all keys."""
    listed = httpx.get(f"{there.url}/v1/keys", headers=bearer(ADMIN)).raise_for_status().json()["data"]
    return {entry["id"] for entry in listed}


def test_one_byte_makes_nobody_an_admin(there: World, keys: Mapping[str, str]) -> None:
    """A newline's escape behind the path: no key is made, nothing is shown, and nothing goes past a limit."""
    before = registered(there)
    for name in ("none", "plain", "limited"):
        with bearing(there, keys[name]) as ask:
            for path in ("/v1/keys", "/openai/v1/keys", "/metrics", "/v1/requests", "/v1/images/edits"):
                for method in ("GET", "POST"):
                    found = ask(method, f"{path}%0A")
                    assert (found.status, found.code) == (400, "invalid_url"), (name, method, path, found)
    assert registered(there) == before


@pytest.mark.parametrize("spelling", ["/v1/images/%65dits", "/v1/images%2Fedits", "/openai/v1/%69mages/edits"])
def test_an_escaped_letter_is_that_letter(there: World, spelling: str) -> None:
    """What the router takes for the route has the route's rights, limits included."""
    headers = bearer(ADMIN)
    key = httpx.post(f"{there.url}/v1/keys", headers=headers, json={"name": "one", "rpm": 1}).json()["key"]

    with bearing(there, key) as ask:
        assert ask("POST", spelling).status == 400
        assert ask("POST", spelling) == Told(status=429, code="rate_limit_exceeded")
    with bearing(there, PLAIN) as ask:
        assert ask("POST", "/v1/%6Beys") == Told(status=403, code="admin_key_required")
    with bearing(there, "") as ask:
        assert ask("GET", "/v1/%6Dodels") == Told(status=401, code="invalid_api_key")


def test_a_path_that_is_none_needs_a_key(there: World) -> None:
    """A stranger is not told which paths there are; whoever has a key is."""
    for key, status, code in (("", 401, "invalid_api_key"), (PLAIN, 404, "unknown_url")):
        with bearing(there, key) as ask:
            for path in ("/", "/nothing", "/v1", "/v1/keys%2F", "/healthz%2F", "/files/", "/hooks/fal", "/readyz/x"):
                assert ask("GET", path) == Told(status=status, code=code), path


def test_the_router_refuses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin's route is closed to other keys also where its endpoint does not look at the key."""

    router = GuardedRouter()

    @router.serve("GET", "/v1/careless", Permission.ADMIN)
    async def careless(request: Request) -> Response:
        return PlainTextResponse("open")

    monkeypatch.setattr(table, "ROUTERS", [*table.ROUTERS, router])
    with world(environ={"DARKROOM_API_KEYS": PLAIN, "DARKROOM_ADMIN_KEY": ADMIN}) as there:
        answers = {key: httpx.get(f"{there.url}/v1/careless", headers=bearer(key)) for key in ("", PLAIN, ADMIN)}

    assert {key: answer.status_code for key, answer in answers.items()} == {"": 401, PLAIN: 403, ADMIN: 200}
