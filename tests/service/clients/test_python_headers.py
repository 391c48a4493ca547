"""The headers of an answer, and the pictures by their addresses, as the Python SDK and a browser see them."""

from __future__ import annotations

import re

import httpx
import pytest
from openai import OpenAI

from tests.support.gateways import Edit
from tests.support.photo import delivered, flat, opened
from tests.support.running import Served

MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
}


def test_headers(client: OpenAI) -> None:
    """An answer's headers say who served it, how long that took, and under which id the log has it."""
    raw = client.images.with_raw_response.edit(image=flat(20, 10), prompt="", model="clarity-upscaler", n=2)

    response = raw.parse()
    assert response.model_extra
    assert raw.headers["content-type"] == "application/json"
    assert int(raw.headers["content-length"]) == len(raw.content)
    assert int(raw.headers["openai-processing-ms"]) > 0
    assert re.fullmatch(r"req_[0-9a-f]{24}", raw.headers["x-request-id"])
    assert raw.headers["x-darkroom-provider"] == "local"
    assert raw.headers["x-darkroom-model"] == "lanczos-bp"
    assert float(raw.headers["x-darkroom-cost"]) == 0
    assert raw.headers["x-darkroom-attempts"] == "2"
    assert raw.headers["x-darkroom-job"] == response.model_extra["id"]
    assert raw.headers["x-darkroom-degraded"] == "true"


def test_not_degraded(client: OpenAI) -> None:
    """Resampling under its own name is what it says, and not degraded."""
    raw = client.images.with_raw_response.edit(image=flat(20, 10), prompt="", model="lanczos-bp")

    assert "x-darkroom-degraded" not in raw.headers


def test_request_id(edit: Edit) -> None:
    """`_request_id` is the answer's own; one that the caller brings is kept."""
    first, second = (edit(image=flat(20, 10), prompt="")._request_id for _ in range(2))
    own = edit(image=flat(20, 10), prompt="", extra_headers={"x-request-id": "mine-1.2_3"})
    foreign = edit(image=flat(20, 10), prompt="", extra_headers={"x-request-id": "a b"})

    assert first
    assert second
    assert first != second
    assert own._request_id == "mine-1.2_3"
    assert str(foreign._request_id).startswith("req_")


@pytest.mark.parametrize("wanted", MEDIA_TYPES)
def test_address(edit: Edit, wanted: str) -> None:
    """A result's address opens in a browser: the same bytes, their type, no sniffing, no key."""
    response = edit(image=flat(20, 10), prompt="", model="lanczos-bp", output_format=wanted)

    assert response.data
    assert response.data[0].url
    got = httpx.get(response.data[0].url)
    head = httpx.head(response.data[0].url)
    assert got.status_code == 200
    assert got.content == delivered(response)
    assert opened(got.content).size == (40, 20)
    for answer in (got, head):
        assert answer.headers["content-type"] == MEDIA_TYPES[wanted]
        assert answer.headers["content-length"] == str(len(got.content))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("inline")
        assert answer.headers["x-request-id"]
        assert 3000 < int(answer.headers["cache-control"].split("max-age=")[1].split(",")[0]) <= 3600
    assert head.content == b""


def test_address_of_the_callers_own_origin(server: Served) -> None:
    """The address begins with the origin that the caller used, for Open WebUI takes no other."""
    port = server.root.rpartition(":")[2]
    with OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none") as client:
        response = client.images.edit(image=flat(20, 10), prompt="", response_format="url")

    assert response.data
    assert str(response.data[0].url).startswith(f"http://localhost:{port}/files/")


def test_names_cannot_be_guessed(edit: Edit, server: Served) -> None:
    """Each picture has a name of its own with 192 random bits, and the next one leads nowhere."""
    response = edit(image=flat(20, 10), prompt="", n=2, response_format="url")

    assert response.data
    names = [str(item.url).rpartition("/")[2] for item in response.data]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{56}\.png", name) for name in names)
    other = names[0].replace(".png", ".webp")
    for missing in (other, "x" * 32 + ".png", "..%2F..%2Fserve.log", "%2e%2e/serve.log", "a.txt"):
        answer = httpx.get(f"{server.root}/files/{missing}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in ("file_not_found", "unknown_url")
