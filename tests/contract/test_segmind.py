"""The adapter for Segmind against the simulator, over real HTTP: what it sends, what it makes of every answer."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from normalization.values import Header, Image, Value
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
from providers.segmind.adapter import Segmind
from tests.simulators import segmind as simulator
from tests.simulators.common import Fault, Op, html, serve, size, tiny
from tests.simulators.segmind import KEY
from tests.support import adapters
from tests.support.clock import Skipping
from tests.support.ports import dead_port

CLARITY = Upstream(model="clarity-upscaler")
V1 = Upstream(model="clarity-upscaler", options={"api": "v1"})
PICTURE = Image(data=tiny(), header=Header(format="png", width=24, height=16))
DATA_URI = f"data:image/png;base64,{base64.b64encode(PICTURE.data).decode()}"
WANTED: dict[str, Value] = {"image": PICTURE, "scale_factor": 2, "seed": 7, "prompt": "größer"}


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock on the wall is nine hours ahead."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def later() -> float:
    """A deadline that nobody comes to: an hour from now, on a clock on which waits take no time."""
    return asyncio.get_running_loop().time() + 3600


def job(upstream: Upstream = CLARITY, **payload: Value) -> UpstreamJob:
    return UpstreamJob(id="job-1", upstream=upstream, payload=payload or WANTED, deadline=later())


@pytest.fixture
def sim(segmind_host: simulator.Segmind) -> Iterator[simulator.Segmind]:
    """The provider. Whatever a test does, no key comes to the delivery host and no job is paid twice."""
    segmind_host.reset()
    yield segmind_host
    assert segmind_host.strangers == []
    assert segmind_host.books.billed <= 1


@pytest.fixture
def url_policy(sim: simulator.Segmind) -> UrlPolicy:
    return UrlPolicy(allow=sim.origins)


@pytest.fixture
async def downloads(url_policy: UrlPolicy) -> AsyncIterator[httpx.AsyncClient]:
    async with downloads_client(url_policy) as made:
        yield made


@pytest.fixture
def settings(
    client: httpx.AsyncClient,
    downloads: httpx.AsyncClient,
    sim: simulator.Segmind,
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
        "upload_url": sim.upload_url,
        "max_result_bytes": 1_000_000,
    }


def impatient(fault: Fault) -> dict[str, Any]:
    """The timeouts for an answer that never ends; for all others they are longer than a busy machine takes."""
    names = ("submit_timeout_s", "poll_timeout_s", "sync_timeout_s")
    return dict.fromkeys(names, 0.3) if fault.kind in {"hang", "drip"} else {}


@pytest.fixture
async def provider(settings: dict[str, Any]) -> AsyncIterator[Segmind]:
    made = adapters.segmind(**settings)
    await made.start()
    yield made
    await made.aclose()


async def run(provider: Segmind, upstream: Upstream = CLARITY, **payload: Value) -> Outcome:
    handle = await provider.submit(job(upstream, **payload))
    return await provider.wait(handle, later())


def broken(word: str) -> Fault:
    return Fault(kind="job", word=word)


def said(status: int, body: object, **headers: str) -> Fault:
    return Fault(status=status, body=body, headers=headers)


async def test_a_job_is_an_upload_a_submit_looks_and_a_download(provider: Segmind, sim: simulator.Segmind) -> None:
    """The exact requests go out in their order, and the picture, the time and the bill come back."""
    sim.run_s = 0.03
    outcome = await run(provider)
    assert [size(picture) for picture in outcome.images] == [(48, 32)]
    assert (outcome.seconds, outcome.cost) == (0.03, 19_300)
    upload, submit, *looks = sim.seen
    assert (upload.path, upload.json) == ("/upload-asset", {"data_urls": [DATA_URI]})
    assert submit.path == "/v2/clarity-upscaler"
    address = submit.json["image"]
    assert address.startswith(f"{sim.images_url}/assets/")
    assert submit.json == {"image": address, "scale_factor": 2, "seed": 7, "prompt": "größer"}
    for sent in (upload, submit):
        assert sent.method == "POST"
        assert sent.headers["content-type"] == "application/json"
    for sent in sim.seen[:-1]:
        assert sent.headers["x-api-key"] == KEY
        assert "authorization" not in sent.headers
    name = f"/v2/requests/{sim.books.taken[0]}"
    assert {look.path for look in looks[:-2]} == {f"{name}/status"}
    assert looks[-2].path == name
    assert looks[-1].path.startswith("/generations/")
    assert KEY not in str(looks[-1].headers)
    assert sim.books.billed == 1


async def test_pictures_anywhere_in_the_payload_are_uploaded_together(
    provider: Segmind, sim: simulator.Segmind
) -> None:
    """A mask and nested pictures travel in one upload, and each address stands where its picture stood."""
    mask = dataclasses.replace(PICTURE, data=tiny(8, 8))
    await provider.submit(job(image=PICTURE, mask=mask, more={"refs": [PICTURE, "x"]}))
    upload, submit = sim.seen
    assert len(upload.json["data_urls"]) == 3
    sent = submit.json
    names = [sent["image"], sent["mask"], sent["more"]["refs"][0]]
    assert [sim.stored(name) for name in names] == [PICTURE.data, mask.data, PICTURE.data]
    assert sent["more"]["refs"][1] == "x"


async def test_small_pictures_may_travel_inside_of_the_request(
    settings: dict[str, Any], sim: simulator.Segmind
) -> None:
    """Where the operator allows it, nothing is uploaded."""
    provider = adapters.segmind(**settings, data_uri_bytes=10_000)
    assert size((await run(provider)).images[0]) == (48, 32)
    assert sim.seen[0].json == {**WANTED, "image": DATA_URI}
    assert sim.books.count("POST", "upload") == 0


async def test_an_upload_answers_in_either_of_two_ways(provider: Segmind, sim: simulator.Segmind) -> None:
    """The client reads `file_urls`, the documentation shows `urls`."""
    sim.upload_key = "urls"
    assert (await run(provider)).images


async def test_a_handle_is_enough_for_another_process(
    provider: Segmind, settings: dict[str, Any], sim: simulator.Segmind
) -> None:
    """It is plain text, and an adapter that never saw the job fetches its picture."""
    handle = await provider.submit(job())
    assert all(isinstance(value, str) for value in handle.data.values())
    restored = Handle(provider=handle.provider, id=handle.id, data=dict(handle.data))
    assert (await adapters.segmind(**settings).wait(restored, later())).cost == 19_300
    bare = Handle(provider="segmind", id=sim.books.taken[0])
    assert (await adapters.segmind(**settings).wait(bare, later())).cost == 19_300


@pytest.mark.parametrize("shape", ["string", "list", "object", "images", "base64"])
async def test_the_output_may_have_any_shape(provider: Segmind, sim: simulator.Segmind, shape: Any) -> None:
    """Only `output` is promised, and not what it is."""
    sim.shape = shape
    assert [size(picture) for picture in (await run(provider)).images] == [(48, 32)]


ANSWERS = [
    (said(400, {"error": "Malformed JSON body"}), Rejected, "HTTP 400: Malformed JSON body"),
    (said(400, {"error": "Blocked by content policy: a nude"}), Blocked, "HTTP 400: Blocked by content policy"),
    (said(401, {"error": "Unauthorized. API key is invalid"}), Unusable, "HTTP 401"),
    (said(401, {"error": "invalid_api_key", "error_description": "gone", "status_code": 401}), Unusable, "gone"),
    (said(403, {"error": "Model is private"}), Unusable, "HTTP 403"),
    (said(404, {"error": "Model not found"}), Failed, "HTTP 404"),
    (html(405), Failed, "HTTP 405"),
    (said(406, {"error": "Insufficient credits. Available: 0.1"}), Unusable, "Insufficient credits"),
    (said(406, {"error": "Team spend limit reached"}), Unusable, "HTTP 406"),
    (said(406, {"error": "Invalid content type"}), Rejected, "HTTP 406: Invalid content type"),
    (said(406, {"error": "handfix must be one of ['disabled']"}), Rejected, "handfix must be one of"),
    (said(410, {"error": "Model retired"}), Failed, "HTTP 410"),
    (said(413, b""), Rejected, "HTTP 413"),
    (said(422, {"error": "Validation error"}), Rejected, "HTTP 422"),
    (said(422, {"status": "FAILED", "error": "CUDA out of memory"}), Failed, "the job failed: CUDA out of memory"),
    (said(200, {"status": "FAILED", "error": "NSFW content detected"}), Blocked, "the job failed"),
    (said(422, {"status": "FAILED", "error": "Prompt is Mandatory and must be string"}), Rejected, "Mandatory"),
    (said(429, {"error": "Rate limit exceeded"}), Throttled, "HTTP 429"),
    (said(500, {"error": "Internal server error"}), Failed, "HTTP 500"),
    (said(503, {"error": "Service unavailable"}), Failed, "HTTP 503"),
]
OF_ANSWERS = [f"{fault.status}-{kind.__name__}-{number}" for number, (fault, kind, _) in enumerate(ANSWERS)]


@pytest.mark.parametrize(("fault", "kind", "message"), ANSWERS, ids=OF_ANSWERS)
@pytest.mark.parametrize("upstream", [CLARITY, V1], ids=["v2", "v1"])
async def test_a_refusal_is_the_right_error_and_costs_nothing(
    provider: Segmind,
    sim: simulator.Segmind,
    upstream: Upstream,
    fault: Fault,
    kind: type[ProviderError],
    message: str,
) -> None:
    """Each status means what Segmind means by it, for a submit and for a synchronous call."""
    sim.faults.script("submit", fault)
    with pytest.raises(ProviderError) as caught:
        await run(provider, upstream)
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert "nude" not in caught.value.message
    assert (sim.books.billed, sim.books.count("POST", "/clarity")) == (0, 1)


async def test_a_callers_words_do_not_park_the_provider(provider: Segmind, sim: simulator.Segmind) -> None:
    """An enum error repeats the value: whoever sends «Insufficient credits» as one must not put our account to rest."""
    with pytest.raises(Rejected) as caught:
        await provider.submit(job(image=PICTURE, handfix="Insufficient credits"))
    assert caught.value.message == "segmind: HTTP 406: handfix must be one of"
    sim.credits = 0
    with pytest.raises(Unusable):
        await provider.submit(job())


async def test_the_simulators_own_limits_are_understood(settings: dict[str, Any], sim: simulator.Segmind) -> None:
    """A wrong key, an unknown model, and the end of the window that a 429 tells of."""
    with pytest.raises(Unusable):
        await adapters.segmind(**{**settings, "key": "SG_wrong"}).submit(job(image="data:,"))
    provider = adapters.segmind(**settings)
    with pytest.raises(Failed, match="Model not found"):
        await provider.submit(job(Upstream(model="no-such-model")))
    sim.per_minute = 0
    with pytest.raises(Throttled) as caught:
        await provider.submit(job())
    assert 0 <= (caught.value.retry_after or -1) <= 61


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"x-rate-limit-reset-at-utc": "@iso"}, 25, 31),
        ({"x-rate-limit-reset-at-utc": "@naive"}, 25, 31),
        ({"x-rate-limit-reset-at-utc": "@elsewhere"}, 25, 31),
        ({"x-rate-limit-reset-at-utc": "@epoch"}, 25, 31),
        ({"x-rate-limit-reset-at-utc": "2020-01-01T00:00:00Z"}, 0, 0),
        ({"retry-after": "7"}, 7, 7),
        ({"x-rate-limit-reset-at-utc": "soon"}, None, None),
        ({}, None, None),
    ],
)
async def test_a_429_tells_until_when_in_any_form(
    provider: Segmind,
    sim: simulator.Segmind,
    far_from_utc: None,
    headers: dict[str, str],
    low: float | None,
    high: float | None,
) -> None:
    """The form of the reset header is not published: as a date with and without a zone, as seconds, or as nothing."""
    then = datetime.now(UTC) + timedelta(seconds=30)
    forms = {
        "@iso": then.isoformat(),
        "@naive": then.replace(tzinfo=None).isoformat(),
        "@elsewhere": then.astimezone(timezone(timedelta(hours=9))).isoformat(),
        "@epoch": str(int(then.timestamp())),
    }
    given = {name: forms.get(value, value) for name, value in headers.items()}
    sim.faults.script("submit", Fault(status=429, body={"error": "slow down"}, headers=given))
    with pytest.raises(Throttled) as caught:
        await provider.submit(job())
    after = caught.value.retry_after
    assert after is None if low is None or high is None else after is not None and low <= after <= high


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
    Fault(status=504, body={"error": "Request timed out"}, after=True),
    Fault(status=200, body=b"", after=True),
    Fault(status=200, body=[1], after=True),
    Fault(status=200, body={"error": "busy"}, after=True),
    Fault(status=200, body={"request_id": 7}, after=True),
    Fault(status=200, body={"request_id": "../../v1/get-user-credits"}, after=True),
    Fault(status=302, body=b"", headers={"location": "https://example.com/"}, after=True),
]
OF_LOST = [f"{fault.kind}-{fault.status}-{number}" for number, fault in enumerate(LOST)]


@pytest.mark.parametrize("fault", LOST, ids=OF_LOST)
async def test_a_lost_answer_is_unknown_and_not_asked_for_twice(
    settings: dict[str, Any], sim: simulator.Segmind, fault: Fault
) -> None:
    """The job was taken and is paid; there is no key and no list to find it by, so nothing else may be bought."""
    sim.faults.script("submit", fault)
    with pytest.raises(Unknown):
        await adapters.segmind(**settings, **impatient(fault)).submit(job())
    assert (len(sim.books.taken), sim.books.billed) == (1, 1)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "http://nobody.invalid", "https://{host}"])
async def test_what_never_left_is_unreached(settings: dict[str, Any], sim: simulator.Segmind, address: str) -> None:
    """Nobody listens, no such name, no TLS there: for the upload as for the submit."""
    url = address.format(port=dead_port(), host=sim.url.removeprefix("http://"))
    for setting in ("base_url", "upload_url"):
        with pytest.raises(Unreached):
            await adapters.segmind(**{**settings, setting: url}).submit(job())
    assert (sim.books.taken, sim.books.billed) == ([], 0)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(kind="hang"), Unreached),
        (Fault(kind="cut"), Unreached),
        (Fault(kind="cut_within"), Unreached),
        (Fault(kind="truncate"), Unreached),
        (Fault(kind="endless"), Unreached),
        (html(500), Unreached),
        (html(502), Unreached),
        (said(503, {"error": "away"}), Unreached),
        (html(200), Unreached),
        (said(200, {}), Unreached),
        (said(200, {"file_urls": []}), Unreached),
        (said(200, {"file_urls": [7]}), Unreached),
        (said(200, {"file_urls": "https://images.segmind.com/a.png"}), Unreached),
        (said(400, {"error": "bad data url"}), Rejected),
        (said(401, {"error": "Unauthorized"}), Unusable),
        (said(413, b""), Rejected),
        (said(429, {"error": "slow down"}), Throttled),
    ],
)
async def test_a_failed_upload_submits_nothing(
    settings: dict[str, Any], sim: simulator.Segmind, fault: Fault, kind: type[ProviderError]
) -> None:
    """A file that did not arrive has cost nothing, so the next route may be tried."""
    sim.faults.always("upload", fault)
    with pytest.raises(ProviderError) as caught:
        await adapters.segmind(**settings, **impatient(fault)).submit(job())
    assert type(caught.value) is kind
    assert sim.books.taken == []


async def test_an_upload_is_tried_again(provider: Segmind, sim: simulator.Segmind) -> None:
    """Once: it costs nothing."""
    sim.faults.script("upload", Fault(kind="cut"))
    assert (await run(provider)).images
    assert sim.books.count("POST", "upload") == 2


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
    said(200, {"status": "DREAMING", "new": True}),
    said(401, {"error": "Unauthorized"}),
    said(403, {"error": "no"}),
    said(404, {"error": "Request not found"}),
    said(429, {"error": "slow down"}),
    Fault(status=429, body={"error": "slow down"}, headers={"retry-after": "0"}),
    Fault(status=302, body=b"", headers={"location": "https://example.com/"}),
]
OF_LOOKS = [f"{fault.kind}-{fault.status}-{number}" for number, fault in enumerate(BAD_LOOKS)]


@pytest.mark.parametrize("fault", BAD_LOOKS, ids=OF_LOOKS)
async def test_a_look_that_fails_is_made_again(settings: dict[str, Any], sim: simulator.Segmind, fault: Fault) -> None:
    """At the status and at the result: the job is there and paid, and the picture is fetched in the end."""
    sim.faults.script("poll", fault)
    sim.faults.script("result", fault)
    assert size((await run(adapters.segmind(**settings, **impatient(fault)))).images[0]) == (48, 32)
    assert (sim.books.count("POST", "/v2/"), sim.books.billed) == (1, 1)


@pytest.mark.parametrize(
    ("word", "fails", "kind", "message", "billed"),
    [
        ("FAILED", "CUDA out of memory", Failed, "segmind: the job failed: CUDA out of memory", 0),
        ("FAILED", "", Failed, "segmind: the job failed", 0),
        ("FAILED", "Prompt 'a naked man' violates our content policy", Blocked, "segmind: the job failed: Prompt", 0),
        ("FAILED", "Input flagged by RAI", Blocked, "segmind: the job failed: Input flagged by RAI", 0),
        ("FAILED", "dynamic must be within 1 and 50", Rejected, "segmind: the job failed: dynamic must be within", 0),
        ("VANISHED", "", Unknown, "segmind: the job is not known there any more", 1),
        ("EMPTY", "", Undecodable, "segmind: the job succeeded, but its picture is not there", 1),
        ("LOST", "", Unfetched, "segmind: the job has succeeded, and its picture is not fetched yet: HTTP 404", 1),
    ],
)
async def test_a_job_that_gives_no_picture(
    provider: Segmind,
    sim: simulator.Segmind,
    word: str,
    fails: str,
    kind: type[ProviderError],
    message: str,
    billed: int,
) -> None:
    """Each end has its error, what is told of it has none of the prompt, and no job is submitted twice."""
    sim.fails = fails
    sim.faults.script("job", broken(word))
    with pytest.raises(ProviderError) as caught:
        await run(provider)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(message)
    assert "naked" not in caught.value.message
    assert (len(sim.books.taken), sim.books.billed) == (1, billed)


@pytest.mark.parametrize("word", ["EMPTY_ONCE", "MOVED", "DREAMING"])
async def test_a_job_that_gives_its_picture_late(provider: Segmind, sim: simulator.Segmind, word: str) -> None:
    """A result without output, an address that is gone and a word that nobody knows are looked at again."""
    sim.faults.script("job", broken(word))
    assert size((await run(provider)).images[0]) == (48, 32)


async def test_a_job_that_does_not_end_may_not_be_bought_elsewhere(
    provider: Segmind, sim: simulator.Segmind, clock: Skipping
) -> None:
    """It cannot be cancelled and may yet be billed, so no route follows; later it can still be waited for."""
    sim.run_s = 100
    handle = await provider.submit(job())
    with pytest.raises(Expired) as caught:
        await provider.wait(handle, clock.after(20))
    assert not caught.value.next_route
    await provider.cancel(handle)
    sim.later(100)
    assert (await provider.wait(handle, later())).cost == 19_300


async def test_the_record_of_a_job_lives_an_hour(provider: Segmind, sim: simulator.Segmind) -> None:
    """After that nobody can say what became of it."""
    handle = await provider.submit(job())
    sim.later(3601)
    with pytest.raises(Unknown):
        await provider.wait(handle, later())


async def test_a_result_that_stays_away_is_lost(provider: Segmind, sim: simulator.Segmind) -> None:
    """The status says COMPLETED, the result is not known: it was paid, and looking on to the deadline gains nothing."""
    sim.faults.always("result", said(404, {"error": "Request not found"}))
    with pytest.raises(Unknown):
        await run(provider)
    assert sim.books.billed == 1


@pytest.mark.parametrize("point", ["poll", "result"])
async def test_two_misses_lose_no_job(settings: dict[str, Any], sim: simulator.Segmind, point: Op) -> None:
    """However little time a job has to be missed for: right after the submit not every server knows of it."""
    sim.faults.script(point, *[said(404, {"error": "Request not found"})] * 2)
    assert size((await run(adapters.segmind(**settings, lost_after_s=0))).images[0]) == (48, 32)


async def test_the_addresses_in_answers_are_not_followed(provider: Segmind, sim: simulator.Segmind) -> None:
    """Our key goes to the configured origin, wherever an answer would lead it."""
    stranger = simulator.Segmind()
    with serve(stranger.app) as elsewhere:
        addresses = dict.fromkeys(("poll_url", "status_url", "response_url"), f"{elsewhere.url}/v2/requests/abcdefgh")
        sim.faults.script("submit", said(200, {"request_id": "abcdefgh", "status": "QUEUED", **addresses}))
        with pytest.raises(Unknown):
            await run(provider)
    assert stranger.seen == []
    assert sim.books.count("GET", "/v2/requests/abcdefgh/status") >= 3


DELIVERIES = [Fault(kind="cut"), Fault(kind="cut_within"), html(500), html(503), said(404, b""), said(200, b"")]


@pytest.mark.parametrize("fault", DELIVERIES, ids=lambda fault: f"{fault.kind}-{fault.status}")
async def test_a_delivery_that_fails_is_fetched_again(provider: Segmind, sim: simulator.Segmind, fault: Fault) -> None:
    """The picture is paid for and is not given up lightly."""
    sim.faults.script("download", fault)
    assert size((await run(provider)).images[0]) == (48, 32)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="endless"),
        Fault(status=302, headers={"location": "http://169.254.169.254/latest"}),
        Fault(status=302, headers={"location": "http://127.0.0.1:1/a.png"}),
        Fault(status=302, headers={"location": "?"}),
    ],
)
async def test_a_delivery_that_leads_astray(provider: Segmind, sim: simulator.Segmind, fault: Fault) -> None:
    """Endless bytes, private addresses and loops end in an error, and the job is submitted once."""
    sim.faults.always("download", fault)
    with pytest.raises(Undecodable):
        await run(provider)
    assert sim.books.count("POST", "/v2/") == 1


@pytest.mark.parametrize("output", ["ftp://x/a.png", "http://10.0.0.1/a.png", "not base64!", {"url": 7}, [[]], 7, {}])
async def test_an_output_that_is_no_picture(provider: Segmind, sim: simulator.Segmind, output: object) -> None:
    """Nothing is fetched at other addresses than public ones, and nothing is made of what is no picture."""
    sim.faults.always("result", said(200, {"status": "COMPLETED", "output": output}))
    with pytest.raises(Undecodable):
        await run(provider)


@pytest.mark.parametrize("metrics", [None, [], {"cost": "x"}, {"cost": True}, {"cost": -1}, {"cost": 1e999}])
async def test_a_bill_that_cannot_be_read_is_none(
    provider: Segmind, sim: simulator.Segmind, metrics: dict[str, Any] | None
) -> None:
    """Then the estimate stands; the picture is delivered all the same."""
    body = {"status": "COMPLETED", "output": [base64.b64encode(b"picture").decode()], "metrics": metrics}
    # Python's JSON knows infinity, and so does what we read it with.
    sim.faults.always("result", Fault(status=200, body=json.dumps(body)))
    assert await run(provider) == Outcome(images=(b"picture",), seconds=None, cost=None)


async def test_v1_gives_the_bytes_and_the_headers(provider: Segmind, sim: simulator.Segmind) -> None:
    """One request after the upload, with the same body, and no look."""
    sim.run_s = 0.05
    outcome = await run(provider, V1)
    assert size(outcome.images[0]) == (48, 32)
    assert (outcome.seconds, outcome.cost) == (0.05, 19_300)
    upload, submit = sim.seen
    assert (upload.path, submit.path) == ("/upload-asset", "/v1/clarity-upscaler")
    assert {**submit.json, "image": ""} == {"image": "", "scale_factor": 2, "seed": 7, "prompt": "größer"}
    assert (submit.headers["x-api-key"], submit.headers["content-type"]) == (KEY, "application/json")


async def test_v1_may_answer_with_json(provider: Segmind, sim: simulator.Segmind) -> None:
    """The content type decides, not the model."""
    sim.v1_json = True
    outcome = await run(provider, V1)
    assert (size(outcome.images[0]), outcome.cost) == ((48, 32), 19_300)


# A half picture and endless bytes under a picture's type are pictures as far as this adapter looks.
@pytest.mark.parametrize(
    "fault",
    [
        *(fault for fault in LOST if fault.kind not in {"endless", "truncate", "drip"}),
        Fault(status=200, headers={"content-type": "image/png"}, after=True),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_a_lost_answer_of_v1_is_unknown(settings: dict[str, Any], sim: simulator.Segmind, fault: Fault) -> None:
    """The call may have been billed, so it is not made again."""
    sim.faults.script("submit", fault)
    provider = adapters.segmind(**settings, **impatient(fault))
    with pytest.raises(Unknown):
        await run(provider, V1)
    assert (len(sim.books.taken), sim.books.billed) == (1, 1)


async def test_a_picture_of_v1_that_has_no_end(provider: Segmind, sim: simulator.Segmind) -> None:
    """It is given up at the cap."""
    sim.faults.script("submit", Fault(kind="endless"))
    with pytest.raises(Undecodable, match="larger than"):
        await run(provider, V1)


async def test_v1_goes_on_past_the_deadline(provider: Segmind, sim: simulator.Segmind, clock: Skipping) -> None:
    """Who comes back gets the picture, once; who comes from another process hears that it is unknown."""
    sim.run_s = 0.3
    handle = await provider.submit(job(V1))
    assert handle.data == {"api": "v1"}
    with pytest.raises(Expired) as caught:
        await provider.wait(handle, clock.after(0.05))
    assert not caught.value.next_route
    assert size((await provider.wait(handle, later())).images[0]) == (48, 32)
    with pytest.raises(Unknown, match="another process"):
        await provider.wait(handle, later())


async def test_closing_hangs_up_on_v1(provider: Segmind, sim: simulator.Segmind) -> None:
    """A job whose connection we closed is unknown to whoever waits for it."""
    sim.run_s = 5
    handle = await provider.submit(job(V1))
    waiting = asyncio.create_task(provider.wait(handle, later()))
    await asyncio.sleep(0.05)
    await provider.aclose()
    with pytest.raises(Unknown):
        await waiting


async def test_without_a_key_it_is_off(settings: dict[str, Any]) -> None:
    """And says which variable is not set."""
    assert adapters.segmind(**settings).readiness(CLARITY) == (Readiness.READY, "")
    for key in (None, ""):
        off = adapters.segmind(**{**settings, "key": key}).readiness(CLARITY)
        assert off == (Readiness.OFF, "SEGMIND_API_KEY is not set")


async def test_a_job_leaves_no_connection_to_strangers(provider: Segmind, sim: simulator.Segmind) -> None:
    """Every request of a whole job went to one of the three configured hosts."""
    await run(provider)
    hosts = {sent.headers["host"] for sent in sim.seen}
    assert hosts == {url.removeprefix("http://") for url in (sim.url, sim.upload_url, sim.images_url)}
