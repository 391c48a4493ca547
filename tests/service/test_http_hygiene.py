"""What every answer says of itself to browsers and caches, and what is believed of whoever stands in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.settings.loader import SHIPPED, ConfigError, load
from tests.simulators.common import tiny
from tests.support.keys import api_key
from tests.support.running import serving
from tests.support.world import World, world

KEYS = {"DARKROOM_API_KEYS": api_key("one")}
ADMIN = {"authorization": f"Bearer {api_key('one')}"}


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    """A gateway without keys, before one provider."""
    with world("replicate") as started:
        yield started


@pytest.mark.parametrize("path", ["/", "/v1/models", "/openai/v1/models/none", "/healthz", "/files/none.png"])
def test_headers_of_every_answer(running: World, path: str) -> None:
    """Good or bad: no sniffing, no framing, no scripts, no referrer, nothing in a shared cache."""
    headers = httpx.get(f"{running.url}{path}").headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


def test_a_file_says_its_own(running: World) -> None:
    """A result may be shown by any page and kept by its browser, for as long as it lives."""
    headers = httpx.get(running.edit().body["data"][0]["url"]).headers

    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["cache-control"].startswith("private, max-age=")


@pytest.mark.parametrize("name", ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip"])
def test_nobody_behind_a_proxy_is_this_machine(running: World, name: str) -> None:
    """A proxy on this machine would make all its callers the operator: without keys they are not served."""
    answer = httpx.get(f"{running.url}/v1/models", headers={name: "203.0.113.7"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "loopback_only")


@pytest.mark.system
@pytest.mark.parametrize(
    ("trusted", "scheme"), [("[]", "http"), ('["127.0.0.0/8"]', "https"), ('["10.0.0.0/8"]', "http")]
)
def test_proxies_are_believed_where_they_are_trusted(tmp_path: Path, trusted: str, scheme: str) -> None:
    """The addresses of results have the scheme that a trusted proxy names, and nobody else."""
    environ = {**KEYS, "DARKROOM_GATEWAY__TRUSTED_PROXIES": trusted}
    with serving(tmp_path, environ=environ) as served:
        headers = {**ADMIN, "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"}
        answer = httpx.post(
            f"{served.base_url}/images/edits",
            data={"model": "lanczos-bp", "prompt": "a cup"},
            files={"image": ("in.png", tiny())},
            headers=headers,
            timeout=60,
        )

    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["url"].startswith(f"{scheme}://")


PAGE = "https://studio.example.org"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,idempotency-key"}


def test_no_page_may_call_by_itself() -> None:
    """Without the setting no answer says anything of it, and a preflight is a call without a key."""
    with world(environ=KEYS) as started:
        preflight = httpx.options(f"{started.url}/v1/images/edits", headers={"origin": PAGE, **ASKS})
        answer = httpx.get(f"{started.url}/v1/models", headers={"origin": PAGE, **ADMIN})

    assert preflight.status_code == 401
    assert not [name for name in (*preflight.headers, *answer.headers) if name.startswith("access-control-")]


def test_pages_that_may_call() -> None:
    """Theirs are the preflight without a key, the answers and the errors; another page gets nothing."""
    environ = {**KEYS, "DARKROOM_GATEWAY__CORS_ORIGINS": f'["{PAGE}"]'}
    with world(environ=environ) as started:
        url = f"{started.url}/v1/images/edits"
        preflight = httpx.options(url, headers={"origin": PAGE, **ASKS})
        refused = httpx.post(url, headers={"origin": PAGE})
        models = httpx.get(f"{started.url}/v1/models", headers={"origin": PAGE, **ADMIN})
        stranger = httpx.options(url, headers={"origin": "https://evil.example.org", **ASKS})

    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert (refused.status_code, models.status_code) == (401, 200)
    for answer in (preflight, refused, models):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in answer.headers
    assert "x-darkroom-job" in models.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in stranger.headers
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (403, "origin_not_allowed")
    for answer in (preflight, stranger):  # as everywhere
        assert answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    with pytest.raises(ConfigError, match="cors_origins"):
        load(SHIPPED, {"DARKROOM_GATEWAY__CORS_ORIGINS": '["*"]'})


def test_what_is_no_network() -> None:
    """A proxy's name is no address: it is told with the setting."""
    with pytest.raises(ConfigError, match="trusted_proxies"):
        load(SHIPPED, {"DARKROOM_GATEWAY__TRUSTED_PROXIES": '["proxy.example.org"]'})


def test_hosts_that_are_answered_for() -> None:
    """By name, below a name, on any port; a probe comes by an address, and is answered all the same."""
    hosts = '["images.example.org", "*.internal.example.org", "::1"]'
    with world(environ={**KEYS, "DARKROOM_GATEWAY__ALLOWED_HOSTS": hosts}) as started:

        def asked(host: str, path: str = "/v1/models") -> httpx.Response:
            return httpx.get(f"{started.url}{path}", headers={**ADMIN, "host": host})

        own = [
            "images.example.org",
            "IMAGES.example.org:8443",
            "a.internal.example.org",
            "images.example.org.",
            "[::1]:8000",
        ]
        others = ["evil.example.org", "internal.example.org", "images.example.org.evil.example", "127.0.0.1", "[", ""]
        for host in own:
            assert asked(host).status_code == 200, host
        for host in others:
            refused = asked(host)
            assert (refused.status_code, refused.json()["error"]["code"]) == (421, "host_not_allowed"), host
        assert asked("127.0.0.1", "/healthz").status_code == 200
        assert asked("127.0.0.1", "/files/none.png").status_code == 421


@pytest.mark.system
def test_addresses_have_the_host_that_a_trusted_proxy_names(tmp_path: Path) -> None:
    """Only where it is trusted; otherwise a caller could have a picture's address lead elsewhere."""
    for trusted, origin in (("[]", None), ('["127.0.0.1"]', "https://images.example.org")):
        with serving(tmp_path, environ={**KEYS, "DARKROOM_GATEWAY__TRUSTED_PROXIES": trusted}) as served:
            answer = httpx.post(
                f"{served.base_url}/images/edits",
                data={"model": "lanczos-bp", "prompt": "a cup"},
                files={"image": ("in.png", tiny())},
                headers={**ADMIN, "x-forwarded-proto": "https", "x-forwarded-host": "images.example.org"},
                timeout=60,
            )

        assert answer.json()["data"][0]["url"].startswith(f"{origin or served.root}/files/")


def test_browsers_are_told_to_come_by_https() -> None:
    """On what came by https, and on nothing else: on the rest it would be ignored, or a lie."""
    environ = {**KEYS, "DARKROOM_GATEWAY__TRUSTED_PROXIES": '["127.0.0.1"]', "DARKROOM_GATEWAY__HSTS_S": "31536000"}
    with world(environ=environ) as started:
        plain = httpx.get(f"{started.url}/healthz")
        secure = httpx.get(f"{started.url}/healthz", headers={"x-forwarded-proto": "https"})
        refused = httpx.get(f"{started.url}/v1/models", headers={"x-forwarded-proto": "https"})

    assert "strict-transport-security" not in plain.headers
    assert refused.status_code == 401
    for answer in (secure, refused):
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_the_document_can_be_taken_away() -> None:
    """As an address that does not exist."""
    with world(environ={**KEYS, "DARKROOM_GATEWAY__DOCS": "false"}) as started:
        answer = httpx.get(f"{started.url}/openapi.json", headers=ADMIN)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
