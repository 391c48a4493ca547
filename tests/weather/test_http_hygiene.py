"""What every answer says of itself to browsers and caches, and what is believed of whoever stands in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.config import SHIPPED, ConfigError, load
from tests.clients.running import serving
from tests.simulators.common import tiny
from tests.weather.world import World, world

KEYS = {"DARKROOM_API_KEYS": "a-key"}


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    """A gateway without keys, before one provider."""
    with world("replicate") as started:
        yield started


@pytest.mark.parametrize("path", ["/", "/v1/models", "/openai/v1/models/none", "/healthz", "/files/none.png", "/docs"])
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


@pytest.mark.parametrize(
    ("trusted", "scheme"), [("[]", "http"), ('["127.0.0.0/8"]', "https"), ('["10.0.0.0/8"]', "http")]
)
def test_proxies_are_believed_where_they_are_trusted(tmp_path: Path, trusted: str, scheme: str) -> None:
    """The addresses of results have the scheme that a trusted proxy names, and nobody else."""
    environ = {**KEYS, "DARKROOM_GATEWAY__TRUSTED_PROXIES": trusted}
    with serving(tmp_path, environ=environ) as served:
        headers = {"authorization": "Bearer a-key", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"}
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
        answer = httpx.get(f"{started.url}/v1/models", headers={"origin": PAGE, "authorization": "Bearer a-key"})

    assert preflight.status_code == 401
    assert not [name for name in (*preflight.headers, *answer.headers) if name.startswith("access-control-")]


def test_pages_that_may_call() -> None:
    """Theirs are the preflight without a key, the answers and the errors; another page gets nothing."""
    environ = {**KEYS, "DARKROOM_GATEWAY__CORS_ORIGINS": f'["{PAGE}"]'}
    with world(environ=environ) as started:
        url = f"{started.url}/v1/images/edits"
        preflight = httpx.options(url, headers={"origin": PAGE, **ASKS})
        refused = httpx.post(url, headers={"origin": PAGE})
        models = httpx.get(f"{started.url}/v1/models", headers={"origin": PAGE, "authorization": "Bearer a-key"})
        stranger = httpx.options(url, headers={"origin": "https://evil.example.org", **ASKS})

    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert (refused.status_code, models.status_code) == (401, 200)
    for answer in (preflight, refused, models):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in answer.headers
    assert "x-darkroom-job" in models.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in stranger.headers
    with pytest.raises(ConfigError, match="cors_origins"):
        load(SHIPPED, {"DARKROOM_GATEWAY__CORS_ORIGINS": '["*"]'})


def test_what_is_no_network() -> None:
    """A proxy's name is no address: it is told with the setting."""
    with pytest.raises(ConfigError, match="trusted_proxies"):
        load(SHIPPED, {"DARKROOM_GATEWAY__TRUSTED_PROXIES": '["proxy.example.org"]'})
