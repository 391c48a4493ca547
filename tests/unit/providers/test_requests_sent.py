"""What each cloud adapter sends for a job, request by request: method, address, headers and body, without a socket.

The addresses are the providers' own, as the adapters ship with them: the simulators of the contract tests have others.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import respx

from normalization.values import Header, Image, Value
from providers.base import AttemptContext, Upstream, UpstreamJob
from providers.fal.adapter import Fal
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.replicate.adapter import Replicate
from providers.segmind.adapter import Segmind
from tests.support import adapters
from tests.support.clock import Still

CLOCK = Still()

KEY = "key-0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n, and the rest of a picture"
PICTURE = Image(data=PNG, header=Header(format="png", width=24, height=16))
DATA_URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
STORED = "https://files.example.com/stored/picture.png"
HOOK = "https://images.example.org/v1/hooks/dr-1?t=a&b=c"
WANTED: Mapping[str, Value] = {"image": PICTURE, "scale_factor": 2, "seed": 7, "prompt": "größer"}
INLINE: Mapping[str, Value] = {**WANTED, "image": DATA_URI}
PLACED: Mapping[str, Value] = {**WANTED, "image": STORED}
UUID = "0f9b1c2d-3e4f-4a5b-8c6d-7e8f9a0b1c2d"
VERSION = "c" * 64
# What httpx puts on every request by itself.
ORDINARY = {*httpx.AsyncClient().headers, "host"}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request as it left: its headers without those that every request has, its body read where it is JSON."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


def sent(request: httpx.Request) -> Sent:
    headers = {name: value for name, value in request.headers.items() if name not in ORDINARY}
    # The length is what the body says, on every request: checked here, and in no expectation.
    assert headers.pop("content-length") == str(len(request.content))
    is_json = headers.get("content-type") == "application/json"
    body = json.loads(request.content) if is_json else request.content
    return Sent(method=request.method, url=str(request.url), headers=headers, body=body)


def posted(url: str, body: object, /, **headers: str) -> Sent:
    """A request with JSON; `_` in the name of a header is `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Sent(method="POST", url=url, headers={"content-type": "application/json", **named}, body=body)


class Wire:
    """Two clients, for the API and for strangers, whose requests end at one router: what it does not know fails."""

    def __init__(self) -> None:
        self.router = respx.MockRouter(assert_all_called=True)
        self.api, self.downloads = (
            httpx.AsyncClient(transport=httpx.MockTransport(self.router.async_handler)) for _ in range(2)
        )

    def answer(self, method: str, url: str, answer: Mapping[str, object]) -> None:
        """A request to exactly this address is answered with JSON."""
        self.router.route(method=method, url=url).mock(httpx.Response(200, json=answer))

    def sent(self) -> list[Sent]:
        """All that was sent, in its order. Every answer that was given out was needed."""
        self.router.assert_all_called()
        return [sent(call.request) for call in self.router.calls]

    def heard_the_key(self) -> set[str]:
        """The origins that were sent the key, in a header: it stands in no address and in no body."""
        found = set()
        for call in self.router.calls:
            url = call.request.url
            assert KEY not in f"{url} {call.request.content!r}"
            if any(KEY in value for value in call.request.headers.values()):
                found.add(f"{url.scheme}://{url.host}")
        return found


class Hooked(AttemptContext):
    """A link with an address that the provider may report to."""

    webhook = HOOK


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    async with made.api, made.downloads:
        yield made


def job(model: str, *, seconds: float = 59.9, options: Mapping[str, Value] | None = None) -> UpstreamJob:
    return UpstreamJob(
        id="dr-1", upstream=Upstream(model=model, options=options or {}), payload=WANTED, deadline=seconds
    )


def form(request: Sent, name: str, filename: str) -> Sent:
    """The upload of the picture as a form, with the boundary that `request` drew."""
    kind = request.headers["content-type"]
    assert kind.startswith("multipart/form-data; boundary=")
    boundary = kind.partition("=")[2].encode()
    about = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: image/png\r\n\r\n'
    body = b"--" + boundary + b"\r\n" + about.encode() + PNG + b"\r\n--" + boundary + b"--\r\n"
    return Sent(method="POST", url=request.url, headers=request.headers, body=body)


REPLICATE = "https://api.replicate.com/v1"
BEARER = f"Bearer {KEY}"


def replicate(wire: Wire, **settings: Any) -> Replicate:
    return adapters.replicate(
        http=wire.api,
        downloads=wire.downloads,
        key=KEY,
        url_policy=UrlPolicy(),
        pace=Pace(CLOCK),
        clock=CLOCK,
        **settings,
    )


async def test_replicate_runs_a_version(wire: Wire) -> None:
    """A community model: its version in the body, an end by itself at the deadline, a submit that is held open."""
    wire.answer("POST", f"{REPLICATE}/predictions", {"id": "p1", "status": "starting"})

    handle = await replicate(wire).submit(job("someone/clarity", options={"version": VERSION}))

    assert handle.id == "p1"
    body = {"version": VERSION, "input": INLINE}
    assert wire.sent() == [
        posted(f"{REPLICATE}/predictions", body, authorization=BEARER, cancel_after="60s", prefer="wait=2")
    ]
    assert wire.heard_the_key() == {"https://api.replicate.com"}


async def test_replicate_runs_an_official_model(wire: Wire) -> None:
    """Its own path and no version; with a webhook, whose messages have no log where the input has a picture in it."""
    wire.answer("POST", f"{REPLICATE}/models/topazlabs/image-upscale/predictions", {"id": "p1", "status": "starting"})

    await replicate(wire, wait_s=0).submit(job("topazlabs/image-upscale", seconds=2.5), Hooked())

    body = {"input": INLINE, "webhook": HOOK, "webhook_events_filter": ["start", "completed"]}
    # Five seconds are the least that it takes.
    url = f"{REPLICATE}/models/topazlabs/image-upscale/predictions"
    assert wire.sent() == [posted(url, body, authorization=BEARER, cancel_after="5s")]


async def test_replicate_gets_a_large_picture_first(wire: Wire) -> None:
    """As a file of its own, with the key; the input has its address, and a webhook may repeat the log."""
    wire.answer("POST", f"{REPLICATE}/files", {"urls": {"get": STORED}})
    wire.answer("POST", f"{REPLICATE}/predictions", {"id": "p1", "status": "starting"})

    await replicate(wire, data_uri_bytes=10).submit(job("someone/clarity", options={"version": VERSION}), Hooked())

    upload, submit = wire.sent()
    assert upload == form(upload, "content", "dr-1.png")
    assert upload.url == f"{REPLICATE}/files"
    assert upload.headers == {"content-type": upload.headers["content-type"], "authorization": BEARER}
    assert submit.body == {
        "version": VERSION,
        "input": PLACED,
        "webhook": HOOK,
        "webhook_events_filter": ["start", "logs", "completed"],
    }
    assert wire.heard_the_key() == {"https://api.replicate.com"}


FAL = "fal-ai/clarity-upscaler"
FAL_HEADERS = {
    "authorization": f"Key {KEY}",
    "x_fal_no_retry": "1",
    "x_app_fal_disable_fallback": "true",
    "x_fal_request_timeout": "60",
}


def fal(wire: Wire, **settings: Any) -> Fal:
    return adapters.fal(
        http=wire.api,
        downloads=wire.downloads,
        key=KEY,
        url_policy=UrlPolicy(),
        pace=Pace(CLOCK),
        clock=CLOCK,
        **settings,
    )


async def test_fal_queues_a_job(wire: Wire) -> None:
    """The input is the body; one try, this model alone, and no start after the deadline."""
    wire.answer("POST", f"https://queue.fal.run/{FAL}", {"request_id": UUID})

    handle = await fal(wire).submit(job(FAL))

    assert handle.id == UUID
    assert wire.sent() == [posted(f"https://queue.fal.run/{FAL}", INLINE, **FAL_HEADERS)]
    assert wire.heard_the_key() == {"https://queue.fal.run"}


async def test_fal_is_told_where_to_report(wire: Wire) -> None:
    """The webhook's address is one value of the query, whatever stands in it."""
    url = (
        f"https://queue.fal.run/{FAL}?fal_webhook=https%3A%2F%2Fimages.example.org%2Fv1%2Fhooks%2Fdr-1%3Ft%3Da%26b%3Dc"
    )
    wire.answer("POST", url, {"request_id": UUID})

    await fal(wire).submit(job(FAL), Hooked())

    assert wire.sent() == [posted(url, INLINE, **FAL_HEADERS)]


async def test_fal_runs_a_job(wire: Wire) -> None:
    """The synchronous host gets the same request, and its answer is the result."""
    wire.answer("POST", f"https://fal.run/{FAL}", {"image": {"url": DATA_URI}})
    adapter = fal(wire, mode="run")

    handle = await adapter.submit(job(FAL))
    outcome = await adapter.wait(handle, asyncio.get_running_loop().time() + 5)

    assert outcome.images == (PNG,)
    assert wire.sent() == [posted(f"https://fal.run/{FAL}", INLINE, **FAL_HEADERS)]
    assert wire.heard_the_key() == {"https://fal.run"}


async def test_fal_gets_a_large_picture_first(wire: Wire) -> None:
    """The storage hears the key and names an address; the picture goes there without it."""
    start = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"
    there = "https://storage.example.net/put?signature=x"
    wire.answer("POST", start, {"upload_url": there, "file_url": STORED})
    wire.answer("PUT", there, {})
    wire.answer("POST", f"https://queue.fal.run/{FAL}", {"request_id": UUID})

    await fal(wire, data_uri_bytes=10).submit(job(FAL))

    about = {"file_name": "picture.png", "content_type": "image/png"}
    assert wire.sent() == [
        posted(start, about, authorization=f"Key {KEY}"),
        Sent(method="PUT", url=there, headers={"content-type": "image/png"}, body=PNG),
        posted(f"https://queue.fal.run/{FAL}", PLACED, **FAL_HEADERS),
    ]
    assert wire.heard_the_key() == {"https://rest.fal.ai", "https://queue.fal.run"}


UPLOAD = "https://workflows-api.segmind.com/upload-asset"
SEGMIND = "https://api.segmind.com"


def segmind(wire: Wire, **settings: Any) -> Segmind:
    return adapters.segmind(
        http=wire.api,
        downloads=wire.downloads,
        key=KEY,
        url_policy=UrlPolicy(),
        pace=Pace(CLOCK),
        clock=CLOCK,
        **settings,
    )


async def test_segmind_gets_the_pictures_first(wire: Wire) -> None:
    """All pictures in one upload, then the job with their addresses; the key goes to both of its hosts."""
    wire.answer("POST", UPLOAD, {"file_urls": [STORED]})
    wire.answer("POST", f"{SEGMIND}/v2/clarity-upscaler", {"request_id": UUID, "status": "QUEUED"})

    handle = await segmind(wire).submit(job("clarity-upscaler"), Hooked())

    assert handle.id == UUID
    assert wire.sent() == [
        posted(UPLOAD, {"data_urls": [DATA_URI]}, x_api_key=KEY),
        posted(f"{SEGMIND}/v2/clarity-upscaler", PLACED, x_api_key=KEY),
    ]
    assert wire.heard_the_key() == {SEGMIND, "https://workflows-api.segmind.com"}


async def test_segmind_makes_a_picture_at_once(wire: Wire) -> None:
    """The synchronous endpoint, with a small picture inside of the request."""
    url = f"{SEGMIND}/v1/clarity-upscaler"
    wire.router.post(url).mock(httpx.Response(200, content=PNG, headers={"content-type": "image/png"}))
    adapter = segmind(wire, data_uri_bytes=1000)

    handle = await adapter.submit(job("clarity-upscaler", options={"api": "v1"}))
    outcome = await adapter.wait(handle, asyncio.get_running_loop().time() + 5)

    assert outcome.images == (PNG,)
    assert wire.sent() == [posted(url, INLINE, x_api_key=KEY)]
    assert wire.heard_the_key() == {SEGMIND}


APIFRAME = "https://api.apiframe.ai"


@pytest.mark.parametrize("link", [AttemptContext(), Hooked()], ids=["alone", "hooked"])
async def test_apiframe_gets_the_picture_first(wire: Wire, link: AttemptContext) -> None:
    """As a form; then the job, under our own id as the key that makes it one, with the parameters in their object."""
    wire.answer("POST", f"{APIFRAME}/v2/uploads", {"url": STORED})
    wire.answer("POST", f"{APIFRAME}/v2/images/upscale", {"jobId": UUID, "status": "QUEUED"})
    adapter = adapters.apiframe(
        http=wire.api, downloads=wire.downloads, key=KEY, url_policy=UrlPolicy(), pace=Pace(CLOCK), clock=CLOCK
    )

    handle = await adapter.submit(job("clarity-upscale", options={"params": "clarityUpscaleParams"}), link)

    assert handle.id == UUID
    upload, submit = wire.sent()
    assert upload == form(upload, "file", "picture.png")
    assert upload.url == f"{APIFRAME}/v2/uploads"
    assert upload.headers == {"content-type": upload.headers["content-type"], "x-api-key": KEY}
    told = {"webhookUrl": HOOK, "webhookEvents": ["progress", "completed", "failed"]} if link.webhook else {}
    body = {"model": "clarity-upscale", "clarityUpscaleParams": PLACED, **told}
    assert submit == posted(f"{APIFRAME}/v2/images/upscale", body, x_api_key=KEY, idempotency_key="dr-1")
    assert wire.heard_the_key() == {APIFRAME}
