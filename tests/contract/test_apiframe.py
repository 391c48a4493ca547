"""The adapter for Apiframe against the simulator, over real HTTP: what it sends, what it makes of every answer."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from normalization.values import Header, Image, Value
from providers.apiframe.adapter import Apiframe
from providers.base import Handle, Outcome, Readiness, Upstream, UpstreamJob
from providers.errors import (
    Blocked,
    Expired,
    Failed,
    ProviderError,
    Rejected,
    Throttled,
    Undecodable,
    Unfetched,
    Unknown,
    Unreached,
    Unusable,
)
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from tests.simulators import apiframe as simulator
from tests.simulators.apiframe import KEY
from tests.simulators.common import Fault, html, size, tiny
from tests.support import adapters
from tests.support.clock import Skipping
from tests.support.ports import dead_port

CLARITY = Upstream(
    model="clarity-upscale", options={"params": "clarityUpscaleParams", "usd_per_credit": simulator.USD_PER_CREDIT}
)
TOPAZ = Upstream(model="topaz-image-upscale", options={"params": "topazUpscaleParams", "usd_per_credit": "0.0125"})
PICTURE = Image(data=tiny(), header=Header(format="png", width=24, height=16))
WANTED: dict[str, Value] = {"image": PICTURE, "scale_factor": 2, "seed": 7, "prompt": "größer"}


def later() -> float:
    """A deadline that nobody comes to: an hour from now, on a clock on which waits take no time."""
    return asyncio.get_running_loop().time() + 3600


def job(upstream: Upstream = CLARITY, **payload: Value) -> UpstreamJob:
    return UpstreamJob(id="dr-job-1", upstream=upstream, payload=payload or WANTED, deadline=later())


@pytest.fixture
def sim(apiframe_host: simulator.Apiframe) -> Iterator[simulator.Apiframe]:
    """The provider. Whatever a test does, no key comes to the delivery host and no job is paid twice."""
    apiframe_host.reset()
    yield apiframe_host
    assert apiframe_host.strangers == []
    assert apiframe_host.books.billed <= 1


@pytest.fixture
def url_policy(sim: simulator.Apiframe) -> UrlPolicy:
    return UrlPolicy(allow=sim.origins)


@pytest.fixture
async def downloads(url_policy: UrlPolicy) -> AsyncIterator[httpx.AsyncClient]:
    async with downloads_client(url_policy) as made:
        yield made


@pytest.fixture
def settings(
    client: httpx.AsyncClient,
    downloads: httpx.AsyncClient,
    sim: simulator.Apiframe,
    url_policy: UrlPolicy,
    clock: Skipping,
) -> dict[str, Any]:
    """What the adapter is built from."""
    return {
        "http": client,
        "downloads": downloads,
        "key": KEY,
        "url_policy": url_policy,
        "pace": Pace(clock),
        "clock": clock,
        "base_url": sim.url,
        "max_result_bytes": 1_000_000,
    }


def impatient(fault: Fault) -> dict[str, Any]:
    """The timeouts for an answer that never ends; for all others they are longer than a busy machine takes."""
    names = ("submit_timeout_s", "poll_timeout_s")
    return dict.fromkeys(names, 0.3) if fault.kind in {"hang", "drip"} else {}


@pytest.fixture
async def provider(settings: dict[str, Any]) -> AsyncIterator[Apiframe]:
    made = adapters.apiframe(**settings)
    await made.start()
    yield made
    await made.aclose()


async def run(provider: Apiframe, upstream: Upstream = CLARITY, **payload: Value) -> Outcome:
    handle = await provider.submit(job(upstream, **payload))
    return await provider.wait(handle, later())


def broken(word: str) -> Fault:
    return Fault(kind="job", word=word)


def said(status: int, body: object, **headers: str) -> Fault:
    return Fault(status=status, body=body, headers=headers)


async def test_a_job_is_an_upload_a_submit_looks_and_a_download(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """The exact requests go out in their order, and the picture and the bill come back."""
    sim.run_s = 0.03
    outcome = await run(provider)
    assert [size(picture) for picture in outcome.images] == [(48, 32)]
    assert (outcome.seconds, outcome.cost) == (None, 30_000)
    upload, submit, *looks, delivery = sim.seen
    assert (upload.method, upload.path) == ("POST", "/v2/uploads")
    assert re.match(r"multipart/form-data; boundary=\S+$", upload.headers["content-type"])
    boundary = upload.headers["content-type"].partition("=")[2].encode()
    form = b'Content-Disposition: form-data; name="file"; filename="picture.png"\r\nContent-Type: image/png\r\n\r\n'
    assert upload.body == b"--" + boundary + b"\r\n" + form + PICTURE.data + b"\r\n--" + boundary + b"--\r\n"
    assert (submit.method, submit.path) == ("POST", "/v2/images/upscale")
    address = submit.json["clarityUpscaleParams"]["image"]
    assert sim.stored(address) == PICTURE.data
    assert submit.json == {
        "model": "clarity-upscale",
        "clarityUpscaleParams": {"image": address, "scale_factor": 2, "seed": 7, "prompt": "größer"},
    }
    assert submit.headers["idempotency-key"] == "dr-job-1"
    assert submit.headers["content-type"] == "application/json"
    assert {look.path for look in looks} == {f"/v2/jobs/{sim.books.taken[0]}"}
    for sent in (upload, submit, *looks):
        assert sent.headers["x-api-key"] == KEY
        assert "authorization" not in sent.headers
    assert delivery.path.startswith("/images/")
    assert KEY not in str(delivery.headers)
    hosts = {sent.headers["host"] for sent in sim.seen}
    assert hosts == {url.removeprefix("http://") for url in (sim.url, sim.cdn_url)}
    assert sim.books.billed == 1


async def test_another_model_has_another_params_object(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """The route's option names it, and the price of a credit may be text."""
    outcome = await run(provider, TOPAZ, image=PICTURE, upscale_factor=4)
    assert (size(outcome.images[0]), outcome.cost) == ((96, 64), 100_000)
    assert set(sim.seen[1].json) == {"model", "topazUpscaleParams"}


@pytest.mark.parametrize("usd", [None, "cheap", "-1", "NaN"])
async def test_without_the_price_of_a_credit_there_is_no_bill(provider: Apiframe, usd: str | None) -> None:
    """Then the estimate stands."""
    options: dict[str, Value] = {"params": "clarityUpscaleParams"}
    if usd is not None:
        options["usd_per_credit"] = usd
    assert (await run(provider, dataclasses.replace(CLARITY, options=options))).cost is None


async def test_pictures_anywhere_in_the_payload_are_uploaded(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """A schema with several pictures gets an address for each, where the picture stood."""
    mask = dataclasses.replace(PICTURE, data=tiny(8, 8))
    with pytest.raises(Rejected, match="Unrecognized key"):
        await provider.submit(job(image=PICTURE, more={"masks": [mask, "x"]}))
    sent = sim.seen[-1].json["clarityUpscaleParams"]
    assert sim.stored(sent["image"]) == PICTURE.data
    assert sim.stored(sent["more"]["masks"][0]) == mask.data
    assert sent["more"]["masks"][1] == "x"


async def test_a_handle_is_enough_for_another_process(
    provider: Apiframe, settings: dict[str, Any], sim: simulator.Apiframe
) -> None:
    """It is plain text, and an adapter that never saw the job fetches its picture and knows its price."""
    handle = await provider.submit(job())
    assert all(isinstance(value, str) for value in handle.data.values())
    restored = Handle(provider=handle.provider, id=handle.id, data=dict(handle.data))
    assert (await adapters.apiframe(**settings).wait(restored, later())).cost == 30_000
    bare = Handle(provider="apiframe", id=sim.books.taken[0])
    assert size((await adapters.apiframe(**settings).wait(bare, later())).images[0]) == (48, 32)


@pytest.mark.parametrize("shape", ["object", "string"])
async def test_the_result_is_an_object_or_a_text(provider: Apiframe, sim: simulator.Apiframe, shape: Any) -> None:
    """The specification leaves it open, and the pages show both."""
    sim.shape = shape
    assert [size(picture) for picture in (await run(provider)).images] == [(48, 32)]


VALIDATION = {"error": "Validation failed", "details": {"clarityUpscaleParams.scale_factor": ["Invalid input"]}}
ANSWERS = [
    (said(400, VALIDATION), Rejected, "HTTP 400: Validation failed; clarityUpscaleParams.scale_factor: Invalid input"),
    (said(400, {"error": "Validation failed", "details": 7}), Rejected, "HTTP 400: Validation failed"),
    (said(400, {"error": "Prompt 'nude' is against our content policy"}), Blocked, "HTTP 400: Prompt"),
    (said(401, {"error": "Invalid API key"}), Unusable, "HTTP 401: Invalid API key"),
    (said(402, {"error": "Insufficient credits", "creditsRequired": 3}), Unusable, "Insufficient credits"),
    (said(403, {"error": "API key is inactive"}), Unusable, "HTTP 403: API key is inactive"),
    (said(404, {"error": "Not found"}), Failed, "HTTP 404"),
    (html(405), Failed, "HTTP 405"),
    (said(422, {"error": "no"}), Rejected, "HTTP 422"),
    (said(429, {"error": "Too many requests"}, **{"retry-after": "7"}), Throttled, "HTTP 429"),
    (said(429, {"error": "Too many requests"}), Throttled, "HTTP 429"),
    (said(500, {"error": "Internal error"}), Failed, "HTTP 500"),
    (said(503, {"error": "Service unavailable"}), Failed, "HTTP 503: Service unavailable"),
    (said(503, {"error": "Service unavailable"}, **{"retry-after": "7"}), Throttled, "HTTP 503"),
]
OF_ANSWERS = [f"{fault.status}-{kind.__name__}-{number}" for number, (fault, kind, _) in enumerate(ANSWERS)]


@pytest.mark.parametrize(("fault", "kind", "message"), ANSWERS, ids=OF_ANSWERS)
async def test_a_refusal_is_the_right_error_and_costs_nothing(
    provider: Apiframe, sim: simulator.Apiframe, fault: Fault, kind: type[ProviderError], message: str
) -> None:
    """Each status means what Apiframe means by it, and a refused submit is not repeated."""
    sim.faults.script("submit", fault)
    with pytest.raises(ProviderError) as caught:
        await provider.submit(job())
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert "nude" not in caught.value.message
    assert caught.value.retry_after == (7 if "retry-after" in fault.headers else None)
    assert (sim.books.taken, sim.books.count("POST", "upscale")) == ([], 1)


async def test_the_simulators_own_limits_are_understood(settings: dict[str, Any], sim: simulator.Apiframe) -> None:
    """A wrong key, an empty purse, a value out of range, and a picture that cannot be read."""
    with pytest.raises(Unusable):
        await adapters.apiframe(**{**settings, "key": "afk_wrong"}).submit(job())
    provider = adapters.apiframe(**settings)
    with pytest.raises(Rejected, match=r"clarityUpscaleParams\.scale_factor: Invalid input"):
        await provider.submit(job(image=PICTURE, scale_factor=3))
    with pytest.raises(Rejected, match="Could not read the input image"):
        await provider.submit(job(image="https://example.com/a.png"))
    sim.credits = 2
    with pytest.raises(Unusable, match="Insufficient credits"):
        await provider.submit(job())
    assert sim.books.taken == []


LOST = [
    Fault(kind="hang", after=True),
    Fault(kind="cut", after=True),
    Fault(kind="cut_within"),
    Fault(kind="drip"),
    Fault(kind="truncate"),
    Fault(kind="endless", after=True),
    dataclasses.replace(html(502), after=True),
    dataclasses.replace(html(500), after=True),
    dataclasses.replace(html(200), after=True),
    Fault(status=504, body={"error": "timeout"}, after=True),
    Fault(status=409, body={"error": "in progress"}, after=True),
    Fault(status=202, body=b"", after=True),
    Fault(status=202, body=[1], after=True),
    Fault(status=202, body={"jobId": 7}, after=True),
    Fault(status=202, body={"jobId": "../me"}, after=True),
    Fault(status=200, body={"error": "busy"}, after=True),
    Fault(status=302, body=b"", headers={"location": "https://example.com/"}, after=True),
]
OF_LOST = [f"{fault.kind}-{fault.status}-{number}" for number, fault in enumerate(LOST)]


@pytest.mark.parametrize("fault", LOST, ids=OF_LOST)
async def test_a_lost_answer_is_asked_for_again_under_its_key(
    settings: dict[str, Any], sim: simulator.Apiframe, fault: Fault
) -> None:
    """The very same submit goes out again, and gives the job that was taken and paid the first time."""
    sim.faults.script("submit", fault)
    assert size((await run(adapters.apiframe(**settings, **impatient(fault)))).images[0]) == (48, 32)
    first, second = (sent for sent in sim.seen if sent.path == "/v2/images/upscale")
    assert (first.body, first.headers) == (second.body, second.headers)
    assert (len(sim.books.taken), sim.books.billed, sim.books.count("POST", "uploads")) == (1, 1, 1)


@pytest.mark.parametrize("fault", [Fault(kind="cut", after=True), html(502)], ids=["taken", "not taken"])
async def test_an_answer_that_stays_lost_is_unknown(provider: Apiframe, sim: simulator.Apiframe, fault: Fault) -> None:
    """After three repeats nobody knows, so nothing else may be bought."""
    sim.faults.always("submit", fault)
    with pytest.raises(Unknown):
        await provider.submit(job())
    assert sim.books.count("POST", "upscale") == 4
    assert sim.books.billed == (1 if fault.after else 0)


REFUSALS = [
    said(401, {"error": "no"}),
    said(400, VALIDATION),
    said(429, {"error": "no"}, **{"retry-after": "0"}),
]


async def test_after_a_lost_answer_a_refusal_settles_nothing(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """The job may run: 401, 400 or 429 may come from what stands before the place where keys are looked up."""
    sim.faults.script("submit", Fault(kind="cut", after=True), *REFUSALS)
    with pytest.raises(Unknown):
        await provider.submit(job())
    assert sim.books.count("POST", "upscale") == 4


async def test_after_a_lost_answer_and_refusals_success_settles_it(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """The last repeat may be the one that tells which job was taken."""
    sim.faults.script("submit", Fault(kind="cut", after=True), *REFUSALS[:2])
    assert (await provider.submit(job())).id == sim.books.taken[0]


async def test_repeats_end_at_the_deadline(provider: Apiframe, sim: simulator.Apiframe, clock: Skipping) -> None:
    """A pause that leads beyond it is not made."""
    sim.faults.script("submit", Fault(kind="cut", after=True), said(429, {"error": "no"}, **{"retry-after": "60"}))
    with pytest.raises(Unknown):
        await provider.submit(dataclasses.replace(job(), deadline=clock.after(30)))
    assert sim.books.count("POST", "upscale") == 2


async def test_a_key_that_comes_with_another_body_is_a_job_that_may_run(
    settings: dict[str, Any], sim: simulator.Apiframe
) -> None:
    """After a crash the same attempt has another upload: 409 then says that the first was taken."""
    await adapters.apiframe(**settings).submit(job())
    with pytest.raises(Unknown, match="409"):
        await adapters.apiframe(**settings).submit(job())
    sim.conflict = False
    assert (await adapters.apiframe(**settings).submit(job())).id == sim.books.taken[0]


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "http://nobody.invalid", "https://{host}"])
async def test_what_never_left_is_unreached(settings: dict[str, Any], sim: simulator.Apiframe, address: str) -> None:
    """Nobody listens, no such name, no TLS there: for the upload as for the submit."""
    url = address.format(port=dead_port(), host=sim.url.removeprefix("http://"))
    for image in (PICTURE, "https://example.com/a.png"):
        with pytest.raises(Unreached):
            await adapters.apiframe(**{**settings, "base_url": url}).submit(job(image=image))
    assert sim.seen == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(kind="hang"), Unreached),
        (Fault(kind="cut"), Unreached),
        (Fault(kind="cut_within"), Unreached),
        (Fault(kind="truncate"), Unreached),
        (Fault(kind="endless"), Unreached),
        (html(500), Unreached),
        (said(502, {"error": "CDN upload failed"}), Unreached),
        (said(503, {"error": "away"}), Unreached),
        (html(200), Unreached),
        (said(201, {}), Unreached),
        (said(201, {"url": 7}), Unreached),
        (said(201, {"url": "file:///etc/passwd"}), Unreached),
        (said(400, {"error": "Unsupported file type"}), Rejected),
        (said(401, {"error": "Invalid API key"}), Unusable),
        (said(403, {"error": "API key is inactive"}), Unusable),
        (said(413, b""), Rejected),
        (said(429, {"error": "Too many requests"}), Throttled),
    ],
)
async def test_a_failed_upload_submits_nothing(
    settings: dict[str, Any], sim: simulator.Apiframe, fault: Fault, kind: type[ProviderError]
) -> None:
    """A file that did not arrive has cost nothing, so the next route may be tried."""
    sim.faults.always("upload", fault)
    with pytest.raises(ProviderError) as caught:
        await adapters.apiframe(**settings, **impatient(fault)).submit(job())
    assert type(caught.value) is kind
    assert sim.books.count("POST", "upscale") == 0


async def test_an_upload_is_tried_again(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """Once: it costs nothing."""
    sim.faults.script("upload", Fault(kind="cut"))
    assert (await run(provider)).images
    assert sim.books.count("POST", "uploads") == 2


async def test_a_picture_that_is_too_large_is_not_sent(settings: dict[str, Any], sim: simulator.Apiframe) -> None:
    """Apiframe takes 25 MB."""
    limit = len(PICTURE.data) - 1
    with pytest.raises(Rejected, match=f"larger than the {limit} bytes"):
        await adapters.apiframe(**settings, max_upload_bytes=limit).submit(job())
    assert sim.seen == []


BAD_LOOKS = [
    Fault(kind="hang"),
    Fault(kind="cut"),
    Fault(kind="cut_within"),
    Fault(kind="drip"),
    Fault(kind="truncate"),
    Fault(kind="endless"),
    html(500),
    html(502),
    html(503),
    html(504),
    html(200),
    said(200, b""),
    said(200, []),
    said(200, {"error": "away"}),
    said(200, {"status": 7}),
    said(401, {"error": "Invalid API key"}),
    said(403, {"error": "API key is inactive"}),
    said(404, {"error": "UpstreamJob not found"}),
    said(429, {"error": "Too many requests"}),
    said(429, {"error": "Too many requests"}, **{"retry-after": "0"}),
    said(302, b"", location="https://example.com/"),
]
OF_LOOKS = [f"{fault.kind}-{fault.status}-{number}" for number, fault in enumerate(BAD_LOOKS)]


@pytest.mark.parametrize("fault", BAD_LOOKS, ids=OF_LOOKS)
async def test_a_look_that_fails_is_made_again(settings: dict[str, Any], sim: simulator.Apiframe, fault: Fault) -> None:
    """The job is there and paid, and the picture is fetched in the end."""
    sim.faults.script("poll", fault)
    assert size((await run(adapters.apiframe(**settings, **impatient(fault)))).images[0]) == (48, 32)
    assert (sim.books.count("POST", "upscale"), sim.books.billed) == (1, 1)


async def test_two_misses_lose_no_job(settings: dict[str, Any], sim: simulator.Apiframe) -> None:
    """However little time a job has to be missed for: right after the submit not every server knows of it."""
    sim.faults.script("poll", *[said(404, {"error": "UpstreamJob not found"})] * 2)
    assert size((await run(adapters.apiframe(**settings, lost_after_s=0))).images[0]) == (48, 32)


POLICY = "Provider returned an error: content policy violation"


@pytest.mark.parametrize(
    ("word", "fails", "kind", "message", "billed"),
    [
        ("FAILED", "Provider returned an error: out of memory", Failed, "the job failed: Provider returned an", 0),
        ("FAILED", "", Failed, "the job failed", 0),
        ("FAILED", POLICY, Blocked, f"the job failed: {POLICY}", 0),
        ("FAILED", "NSFW: 'a naked man'", Blocked, "the job failed: NSFW", 0),
        ("CANCELLED", "", Failed, "the job was cancelled there", 0),
        ("VANISHED", "", Unknown, "the job is not known there any more", 1),
        ("EMPTY", "", Undecodable, "the job succeeded, but its picture is not there", 1),
        ("LOST", "", Unfetched, "the job has succeeded, and its picture is not fetched yet: HTTP 404", 1),
    ],
)
async def test_a_job_that_gives_no_picture(
    provider: Apiframe,
    sim: simulator.Apiframe,
    word: str,
    fails: str,
    kind: type[ProviderError],
    message: str,
    billed: int,
) -> None:
    """Each end has its error and its bill, nothing of the prompt is told, and nothing is submitted twice."""
    sim.fails = fails
    sim.faults.script("job", broken(word))
    with pytest.raises(ProviderError) as caught:
        await run(provider)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(f"apiframe: {message}")
    assert "naked" not in caught.value.message
    assert (len(sim.books.taken), sim.books.billed) == (1, billed)
    assert sim.credits == 100 - 3 * billed


@pytest.mark.parametrize("word", ["EMPTY_ONCE", "MOVED", "DREAMING"])
async def test_a_job_that_gives_its_picture_late(provider: Apiframe, sim: simulator.Apiframe, word: str) -> None:
    """A result without pictures, an address that is gone and a word that nobody knows are looked at again."""
    sim.faults.script("job", broken(word))
    assert size((await run(provider)).images[0]) == (48, 32)


async def test_a_job_that_does_not_end_may_not_be_bought_elsewhere(
    provider: Apiframe, sim: simulator.Apiframe, clock: Skipping
) -> None:
    """It cannot be cancelled and is paid already, so no route follows; later it can still be waited for."""
    sim.run_s = 100
    handle = await provider.submit(job())
    with pytest.raises(Expired) as caught:
        await provider.wait(handle, clock.after(20))
    assert not caught.value.next_route
    await provider.cancel(handle)
    sim.later(100)
    assert (await provider.wait(handle, later())).cost == 30_000


async def test_what_is_fetched_too_late_does_not_come(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """Pictures live for a day; after that the job is a paid one without a picture, and nothing is bought for it."""
    handle = await provider.submit(job())
    sim.later(25 * 3600)
    with pytest.raises(Unfetched) as caught:
        await provider.wait(handle, later())
    assert not caught.value.next_route


DELIVERIES = [Fault(kind="cut"), Fault(kind="cut_within"), html(500), html(503), said(404, b""), said(200, b"")]


@pytest.mark.parametrize("fault", DELIVERIES, ids=lambda fault: f"{fault.kind}-{fault.status}")
async def test_a_delivery_that_fails_is_fetched_again(
    provider: Apiframe, sim: simulator.Apiframe, fault: Fault
) -> None:
    """The picture is paid for and is not given up lightly."""
    sim.faults.script("download", fault)
    assert size((await run(provider)).images[0]) == (48, 32)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="endless"),
        said(302, b"", location="http://169.254.169.254/latest"),
        said(302, b"", location="http://127.0.0.1:1/a.png"),
        said(302, b"", location="?"),
    ],
)
async def test_a_delivery_that_leads_astray(provider: Apiframe, sim: simulator.Apiframe, fault: Fault) -> None:
    """Endless bytes, private addresses and loops end in an error, and the job is submitted once."""
    sim.faults.always("download", fault)
    with pytest.raises(Undecodable):
        await run(provider)
    assert sim.books.count("POST", "upscale") == 1


@pytest.mark.parametrize(
    "result",
    [None, 7, "", "ftp://x/a.png", {"images": [7]}, {"images": ["http://10.0.0.1/a.png"]}, {"images": [{"url": ""}]}],
)
async def test_a_result_that_is_no_picture(provider: Apiframe, sim: simulator.Apiframe, result: object) -> None:
    """Nothing is fetched at other addresses than public ones, and nothing is made of what is no picture."""
    sim.faults.always("poll", said(200, {"status": "COMPLETED", "result": result, "creditCost": 3}))
    with pytest.raises(Undecodable):
        await run(provider)


@pytest.mark.parametrize("spent", [None, "3", True, -3, [3]])
async def test_credits_that_cannot_be_read_are_no_bill(
    provider: Apiframe, sim: simulator.Apiframe, spent: object
) -> None:
    """The picture is delivered all the same, in whatever case the status is written."""
    result = {"images": [{"url": "data:image/png;base64,cGljdHVyZQ=="}]}
    sim.faults.always("poll", said(200, {"status": "completed", "result": result, "creditCost": spent}))
    assert await run(provider) == Outcome(images=(b"picture",), seconds=None, cost=None)


async def test_it_is_off_without_a_key_and_without_the_name_of_its_params(
    settings: dict[str, Any], sim: simulator.Apiframe
) -> None:
    """And says which variable or option is not set; a submit then is refused before anything is sent."""
    assert adapters.apiframe(**settings).readiness(CLARITY) == (Readiness.READY, "")
    for key in (None, ""):
        off = adapters.apiframe(**{**settings, "key": key}).readiness(CLARITY)
        assert off == (Readiness.OFF, "APIFRAME_API_KEY is not set")
    nameless = Upstream(model="clarity-upscale")
    assert adapters.apiframe(**settings).readiness(nameless)[0] is Readiness.OFF
    with pytest.raises(Rejected, match=r"options\.params"):
        await adapters.apiframe(**settings).submit(job(nameless))
    assert sim.seen == []
