"""A gateway's application without an API key of its own, however it was started."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import build
from gateway.settings.errors import ConfigError
from gateway.settings.loader import SHIPPED, load
from tests.simulators.base import AUTH
from tests.support.hooked import ask, caller
from tests.support.keys import api_key
from tests.support.world import World, world


def refused(there: World) -> None:
    """Every call is, whatever it would cost."""
    with caller(there.url) as client:
        for answer in (
            ask(client),
            ask(client, dry_run="true"),
            client.get("/models"),
            client.get("/images/jobs"),
            client.get("/webhooks/secret"),
            client.get("/keys"),
            client.post("/keys", json={"name": "mine", "admin": True}),
            httpx.get(f"{there.url}/v1/requests"),
            httpx.get(f"{there.url}/metrics"),
            httpx.get(f"{there.url}/openapi.json"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), answer.url
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get(f"{there.url}/healthz").status_code == 200


def test_with_a_providers_key() -> None:
    """The application itself asks for a key: that is not left to the command that starts it."""
    with world("replicate", environ={AUTH: "auto"}) as there:
        refused(there)
        assert there.taken("replicate") == 0


def test_where_the_operator_wants_keys() -> None:
    """They are asked for although nothing costs money."""
    with world(environ={AUTH: "required"}) as there:
        refused(there)


@pytest.mark.parametrize("name", ["DARKROOM_API_KEYS", "DARKROOM_ADMIN_KEY"])
def test_keys_and_none(name: str) -> None:
    """Which of the two is meant cannot be told: the application does not start."""
    environ = {AUTH: "none", name: api_key("one")}
    with pytest.raises(ConfigError, match="one of the two"):
        build(load(SHIPPED, environ), environ)


def test_nobody_manages_keys_without_one() -> None:
    """Where calls need no key, keys are neither made nor seen nor revoked without one."""
    with world("replicate") as there, caller(there.url) as client:
        assert ask(client).status_code == 200
        for method, path in (
            ("GET", "/keys"),
            ("POST", "/keys"),
            ("GET", "/keys/key_0123456789abcdef"),
            ("PATCH", "/keys/key_0123456789abcdef"),
            ("DELETE", "/keys/key_0123456789abcdef"),
        ):
            answer = client.request(method, path, json={"name": "mine", "admin": True})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert "darkroom keys create --admin" in answer.json()["error"]["message"]
        assert ask(client).status_code == 200
