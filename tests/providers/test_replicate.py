"""The adapter for Replicate, against a simulated one over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from normalization.values import Header, Image, Value
from providers.base import (
    Blocked,
    Expired,
    Failed,
    Handle,
    Job,
    Outcome,
    ProviderError,
    Readiness,
    Rejected,
    Throttled,
    Undecodable,
    Unknown,
    Unreached,
    Unusable,
    Upstream,
)
from providers.download import downloads_client
from providers.guard import Guard
from providers.polling import Pace
from providers.replicate import Replicate
from tests.simulators.common import Fault, free_port, html, size, tiny
from tests.simulators.replicate import CLARITY, TOKEN, USD_PER_SECOND, Simulator

PICTURE = tiny(24, 16)
IMAGE = Image(data=PICTURE, header=Header(format="png", width=24, height=16))
DATA_URI = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
UPSTREAM = Upstream(model="philz1337x/clarity-upscaler", options={"version": CLARITY, "usd_per_second": USD_PER_SECOND})
OFFICIAL = Upstream(model="topazlabs/image-upscale")


def soon(seconds: float = 10) -> float:
    return asyncio.get_running_loop().time() + seconds


def job(seconds: float = 10, upstream: Upstream = UPSTREAM, **payload: Value) -> Job:
    given: dict[str, Value] = {"image": IMAGE, "scale_factor": 2, "seed": 77, **payload}
    return Job(id="attempt-1", upstream=upstream, payload=given, deadline=soon(seconds))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random waits after a failure are short here."""
    monkeypatch.setattr("providers.polling._JITTER_S", 0.02)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator().running() as running:
        yield running


def adapter(client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator, **settings: Any) -> Replicate:
    patience = {"reconcile_s": 0.6, "cancel_timeout_s": 0.6, "vanish_s": 0.3, "poll_timeout_s": 0.5, "wait_s": 0}
    return Replicate(
        client,
        downloads,
        **{
            "key": TOKEN,
            "base_url": sim.url,
            "guard": Guard(sim.origins),
            "pace": Pace(),
            "submit_timeout_s": 1.0,
            "max_result_bytes": 1_000_000,
            **patience,
            **settings,
        },
    )


@pytest.fixture
async def downloads(sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with downloads_client(Guard(sim.origins)) as made:
        yield made


@pytest.fixture
def provider(client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator) -> Replicate:
    return adapter(client, downloads, sim)


async def run(provider: Replicate, given: Job | None = None, seconds: float = 5) -> Outcome:
    handle = await provider.submit(given or job())
    return await provider.wait(handle, soon(seconds))


async def test_a_job_is_one_submit_of_the_pinned_version_and_its_result_is_the_larger_picture(
    provider: Replicate, sim: Simulator
) -> None:
    """The exact request goes out, the picture comes back enlarged, and the cost is the time that Replicate bills."""
    outcome = await run(provider)

    assert [size(data) for data in outcome.pictures] == [(48, 32)]
    assert sim.bodies == [{"version": CLARITY, "input": {"image": DATA_URI, "scale_factor": 2, "seed": 77}}]
    assert sim.books.requests[0] == ("POST", "/v1/predictions")
    assert sim.headers[0]["authorization"] == f"Bearer {TOKEN}"
    assert sim.headers[0]["cancel-after"] == "10s"
    assert "prefer" not in sim.headers[0]
    assert outcome.seconds == pytest.approx(0.1, abs=0.01)
    assert outcome.seconds
    assert outcome.cost == round(outcome.seconds * USD_PER_SECOND * 1_000_000)
    assert sim.books.billed == 1


async def test_an_official_model_is_submitted_to_its_own_path(provider: Replicate, sim: Simulator) -> None:
    """Without a version the model's path is used, the body has the input alone, and no price by time is made up."""
    given = Job(id="a", upstream=OFFICIAL, payload={"image": IMAGE, "upscale_factor": "4x"}, deadline=soon())

    outcome = await run(provider, given)

    assert sim.books.requests[0] == ("POST", "/v1/models/topazlabs/image-upscale/predictions")
    assert sim.bodies == [{"input": {"image": DATA_URI, "upscale_factor": "4x"}}]
    assert size(outcome.pictures[0]) == (96, 64)
    assert outcome.cost is None


async def test_a_community_model_without_its_version_is_not_there(provider: Replicate, sim: Simulator) -> None:
    """A table that forgets the version meets Replicate's 404, which blames nobody's input."""
    with pytest.raises(Failed, match="404"):
        await run(provider, job(upstream=Upstream(model="philz1337x/clarity-upscaler")))
    assert sim.books.taken == []


async def test_a_large_picture_is_uploaded_first(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator
) -> None:
    """Above the limit the picture goes to the Files API, byte for byte, and the input has its address there."""
    await run(adapter(client, downloads, sim, data_uri_bytes=10), job(mask=IMAGE, several=[IMAGE]))

    given = sim.bodies[0]["input"]
    addresses = [given["image"], given["mask"], *given["several"]]
    assert all(re.fullmatch(re.escape(sim.url) + r"/v1/files/[\w-]+", address) for address in addresses)
    kept = [sim.files[address.rpartition("/")[2]] for address in addresses]
    assert {data for _, data in kept} == {PICTURE}
    assert {(about["name"], about["content_type"]) for about, _ in kept} == {("attempt-1.png", "image/png")}


@pytest.mark.parametrize("fault", [html(502), Fault(kind="cut"), Fault(body={"detail": "later"}, status=503)])
async def test_an_upload_is_tried_again(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator, fault: Fault
) -> None:
    """An upload buys nothing, so a failed one is repeated before the job is."""
    sim.faults.script("upload", fault)
    outcome = await run(adapter(client, downloads, sim, data_uri_bytes=10))

    assert len(outcome.pictures) == 1
    assert sim.books.count("POST", "/v1/files") == 2
    assert sim.books.billed == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (html(502), Unreached),
        (Fault(kind="cut"), Unreached),
        (Fault(status=201, body={"urls": {}}), Unreached),
        (Fault(status=413, body={"detail": "too large"}), Rejected),
        (Fault(status=401, body={"detail": "no"}), Unusable),
        (Fault(status=429, body={"detail": "slow"}), Throttled),
    ],
)
async def test_a_job_whose_picture_cannot_be_uploaded_is_not_submitted(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator, fault: Fault, kind: type[ProviderError]
) -> None:
    """Nothing is bought where the picture did not arrive."""
    sim.faults.always("upload", fault)
    with pytest.raises(kind):
        await run(adapter(client, downloads, sim, data_uri_bytes=10))
    assert sim.bodies == []


@pytest.mark.parametrize("shape", ["string", "list", "dict"])
@pytest.mark.parametrize("wait_s", [0, 5])
async def test_every_shape_of_output_is_read(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator, shape: Any, wait_s: int
) -> None:
    """One address, a list and an object of addresses give the picture, whether the submit was held open or not."""
    sim.shape = shape
    outcome = await run(adapter(client, downloads, sim, wait_s=wait_s))
    assert [size(data) for data in outcome.pictures] == [(48, 32)]


async def test_pictures_inside_of_the_answer_need_no_download(provider: Replicate, sim: Simulator) -> None:
    """A data URI as output is the picture."""
    handle = await provider.submit(job())
    prediction = sim.jobs[handle.id]
    prediction.output = [prediction.inline[0]]
    outcome = await provider.wait(handle, soon())

    assert size(outcome.pictures[0]) == (48, 32)


async def test_a_submit_that_is_held_open_is_an_optimisation_only(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator
) -> None:
    """Done in time the first look finds it; not done in time it is polled for like any other."""
    held = adapter(client, downloads, sim, wait_s=1)
    first = await run(held)
    assert sim.headers[0]["prefer"] == "wait=1"
    assert sim.books.count("GET", "/v1/predictions/") == 1
    sim.run_s = 1.4
    second = await run(held)

    assert len(first.pictures) == len(second.pictures) == 1
    assert first.cost
    assert second.cost
    assert sim.books.billed == 2


async def test_a_handle_is_enough_in_another_process(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator
) -> None:
    """Stored as plain strings, it is waited for by an adapter that knows nothing of the submit."""
    handle = await adapter(client, downloads, sim).submit(job())
    assert all(isinstance(value, str) for value in handle.data.values())
    stored = Handle(provider=handle.provider, id=handle.id, data=dict(handle.data))
    outcome = await adapter(client, downloads, sim).wait(stored, soon())

    assert len(outcome.pictures) == 1
    assert outcome.cost
    assert sim.books.billed == 1


@pytest.mark.parametrize(
    ("word", "kind", "message", "billed"),
    [
        ("fails", Failed, "CUDA out of memory", 1),
        ("nsfw", Blocked, "flagged as sensitive", 1),
        ("empty", Undecodable, "has no picture", 1),
        ("removed", Undecodable, "has no picture any more", 1),
        ("vanishes", Unknown, "vanished", 1),
    ],
)
async def test_a_job_that_goes_wrong(
    provider: Replicate, sim: Simulator, word: str, kind: type[ProviderError], message: str, billed: int
) -> None:
    """What Replicate says of a job becomes the error that carries the policy, and it was submitted once."""
    sim.faults.script("job", Fault(kind="job", word=word))
    with pytest.raises(kind, match=message):
        await run(provider)
    assert len(sim.bodies) == 1
    assert sim.books.billed == billed


@pytest.mark.parametrize("word", ["stranger", "bare", "back"])
async def test_odd_jobs_come_to_a_good_end(provider: Replicate, sim: Simulator, word: str) -> None:
    """A status nobody knows, metrics that come late and a step backwards cost another look, not the picture."""
    sim.faults.script("job", Fault(kind="job", word=word))
    outcome = await run(provider)

    assert len(outcome.pictures) == 1
    assert outcome.cost
    assert sim.books.billed == 1


async def test_a_job_that_is_stuck_is_cancelled_at_the_deadline_and_seen_to_end(
    provider: Replicate, sim: Simulator
) -> None:
    """When Expired is raised, the job runs no more."""
    sim.faults.script("job", Fault(kind="job", word="stuck"))
    with pytest.raises(Expired, match="canceled"):
        await run(provider, seconds=0.3)
    assert [job.status for job in sim.jobs.values()] == ["canceled"]


@pytest.mark.parametrize("fault", [html(502), Fault(kind="hang"), Fault(status=404, body={"detail": "none"})])
async def test_a_job_that_could_not_be_cancelled_is_unknown(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """While it may run, no other route may be paid."""
    sim.faults.script("job", Fault(kind="job", word="stuck"))
    sim.faults.always("cancel", fault)
    with pytest.raises(Unknown, match="seen to end"):
        await run(provider, seconds=0.3)


async def test_a_job_that_was_done_before_its_cancel_is_a_result(provider: Replicate, sim: Simulator) -> None:
    """The deadline came first, the polls were lost, and the paid picture is delivered all the same."""
    sim.faults.script("poll", *[html(502)] * 50)
    handle = await provider.submit(job())
    outcome = await provider.wait(handle, soon(0.4))

    assert size(outcome.pictures[0]) == (48, 32)
    assert sim.books.count("POST", "/cancel") == 1


async def test_cancelling_ends_a_job_and_harms_no_ended_one(provider: Replicate, sim: Simulator) -> None:
    """A running job is cancelled, a done one stays a result that can be waited for."""
    sim.run_s = 30
    handle = await provider.submit(job())
    await provider.cancel(handle)
    assert sim.jobs[handle.id].status == "canceled"
    with pytest.raises(Failed, match="was canceled"):
        await provider.wait(handle, soon())
    sim.run_s = 0.01
    done = await provider.submit(job())
    await asyncio.sleep(0.1)
    await provider.cancel(done)

    assert len((await provider.wait(done, soon())).pictures) == 1


async def test_a_job_that_never_began_is_aborted_by_its_own_deadline(provider: Replicate, sim: Simulator) -> None:
    """Replicate stops it without our doing, which costs nothing."""
    sim.boot_s = 60
    handle = await provider.submit(job(seconds=1))
    assert sim.headers[0]["cancel-after"] == "5s"
    sim.jobs[handle.id].cancel_after_s = 0.05
    with pytest.raises(Failed, match="was aborted"):
        await provider.wait(handle, soon())
    assert sim.books.billed == 0


THROTTLED = {"detail": "Request was throttled. Your rate limit resets in ~30s.", "status": 429}
CREDIT = "You have insufficient credit to run this model."
FORMAT = 'output_format must be one of the following: "webp", "jpg", "png"'


@pytest.mark.parametrize(
    ("fault", "kind", "message", "retry_after"),
    [
        (Fault(status=400, body={"detail": "bad"}), Rejected, "bad", None),
        (Fault(status=401, body={"detail": "Invalid token."}), Unusable, "Invalid token", None),
        (Fault(status=402, body={"title": "Insufficient credit", "detail": CREDIT}), Unusable, "credit", None),
        (Fault(status=403, body={"detail": "no"}), Unusable, "403", None),
        (Fault(status=404, body={"detail": "not found"}), Failed, "404", None),
        (Fault(status=413, body={"detail": "too large"}), Rejected, "413", None),
        (
            Fault(status=422, body={"title": "Invalid version or not permitted", "detail": "none"}),
            Failed,
            "none",
            None,
        ),
        (Fault(status=429, body=THROTTLED), Throttled, "throttled", 30.0),
        (Fault(status=429, body={**THROTTLED, "retry_after": 5}), Throttled, "throttled", 5.0),
        (Fault(status=429, body=THROTTLED, headers={"retry-after": "7"}), Throttled, "throttled", 7.0),
        (Fault(status=429, body=b""), Throttled, "429", None),
        (Fault(status=503, body={"detail": "busy"}), Failed, "503", None),
    ],
)
async def test_a_refused_submit(
    provider: Replicate,
    sim: Simulator,
    fault: Fault,
    kind: type[ProviderError],
    message: str,
    retry_after: float | None,
) -> None:
    """Each refusal is the error that carries its policy, after one request, and nothing was taken."""
    sim.faults.script("submit", fault)
    with pytest.raises(kind, match=message) as caught:
        await provider.submit(job())
    assert caught.value.retry_after == retry_after
    assert sim.books.count("POST", "") == 1
    assert sim.books.taken == []


async def test_an_input_that_the_model_refuses_names_the_parameter(provider: Replicate, sim: Simulator) -> None:
    """The caller reads which parameter it was and what would have been taken."""
    with pytest.raises(Rejected) as caught:
        await provider.submit(job(output_format="gif"))
    assert caught.value.message == f"replicate: {FORMAT}"


LOST = [
    Fault(kind="cut", after=True),
    Fault(kind="cut_within"),
    Fault(kind="hang", after=True),
    replace(html(502), after=True),
    replace(html(504), after=True),
    Fault(status=500, body={"detail": "Internal error"}, after=True),
    Fault(status=201, body=b"{'", after=True),
    Fault(status=201, body=b"", after=True),
    Fault(status=201, body=[1], after=True),
    Fault(status=201, body={"status": "starting"}, after=True),
    Fault(status=200, body={"error": "no"}, after=True),
]


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: f"{fault.kind}-{fault.status}")
async def test_a_job_whose_submit_was_not_answered_is_found_again(
    provider: Replicate, sim: Simulator, fault: Fault
) -> None:
    """The submit was taken and its answer lost: the job turns up in the list, and is bought once."""
    sim.faults.script("submit", fault)
    outcome = await run(provider)

    assert size(outcome.pictures[0]) == (48, 32)
    assert sim.books.count("POST", "/v1/predictions") == 1
    assert sim.books.billed == 1


@pytest.mark.parametrize("fault", [replace(fault, after=False) for fault in LOST if fault.kind != "cut_within"])
async def test_a_job_that_is_not_found_again_is_unknown(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """A list that does not have it proves nothing, but for a 500 that Replicate itself has said."""
    sim.faults.script("submit", fault)
    with pytest.raises(Failed if fault.status == 500 and fault.body else Unknown):
        await provider.submit(job())
    assert sim.books.count("POST", "") == 1
    assert sim.books.count("GET", "/v1/predictions") >= 1


async def test_a_list_that_cannot_be_read_leaves_a_lost_job_unknown(provider: Replicate, sim: Simulator) -> None:
    """Even after a 500: it may have been taken."""
    sim.faults.script("submit", Fault(status=500, body={"detail": "Internal error"}))
    sim.faults.always("list", Fault(body={"results": 3}, status=200))
    with pytest.raises(Unknown):
        await provider.submit(job())


async def test_a_lost_job_is_not_taken_for_another(provider: Replicate, sim: Simulator) -> None:
    """Same model, same parameters, same moment: another picture is another caller's job, and ours is ours already."""
    other = tiny(24, 16, (1, 2, 3))
    await provider.submit(job())
    stranger = await provider.submit(job(image=Image(data=other, header=IMAGE.header)))
    provider._ours.pop(stranger.id)
    sim.faults.script("submit", Fault(kind="cut"))
    with pytest.raises(Unknown):
        await provider.submit(job())
    assert len(sim.books.taken) == 2


async def test_a_submit_that_is_refused_a_connection_was_not_sent(
    client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator
) -> None:
    """Nobody listens: the next route may be tried at once."""
    away = adapter(client, downloads, sim, base_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreached):
        await away.submit(job())


async def test_a_job_is_not_submitted_after_its_deadline(provider: Replicate, sim: Simulator) -> None:
    """Nobody waits for it any more."""
    with pytest.raises(Expired):
        await provider.submit(job(seconds=-1))
    assert sim.bodies == []


WEATHER = [
    html(500),
    html(502),
    html(503),
    html(504),
    Fault(kind="hang"),
    Fault(kind="cut"),
    Fault(kind="cut_within"),
    Fault(kind="drip", seconds=0.1),
    Fault(status=200, body=b"<html>"),
    Fault(status=200, body=b""),
    Fault(status=200, body=[]),
    Fault(status=200, body={"error": "no"}),
    Fault(status=200, body={"status": 7}),
    Fault(status=429, body={"detail": "slow", "retry_after": 0.1}),
    Fault(status=404, body={"detail": "The requested resource could not be found."}),
    Fault(status=401, body={"detail": "no"}),
    Fault(status=302, headers={"location": "https://example.com/"}),
]


@pytest.mark.parametrize("fault", WEATHER, ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.body!r:.12}")
async def test_a_poll_that_fails_is_polled_again(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """Two bad answers in a row cost time, never a second submit."""
    sim.faults.script("poll", fault, fault)
    outcome = await run(provider)

    assert size(outcome.pictures[0]) == (48, 32)
    assert len(sim.bodies) == 1
    assert sim.books.billed == 1


@pytest.mark.parametrize(
    "fault",
    [
        html(500),
        html(503),
        Fault(status=404),
        Fault(status=429),
        Fault(kind="cut"),
        Fault(kind="cut_within"),
        Fault(status=200, body=b""),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_a_download_that_fails_is_tried_again(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """A paid picture is not given up for a broken connection, and not bought again."""
    sim.faults.script("download", fault)
    outcome = await run(provider)

    assert size(outcome.pictures[0]) == (48, 32)
    assert sim.books.billed == 1
    assert len(sim.bodies) == 1


async def test_an_address_that_ran_out_is_asked_for_anew_once(provider: Replicate, sim: Simulator) -> None:
    """The job names its result again; where that is gone too, the picture is lost."""
    sim.faults.script("download", Fault(status=403))
    assert len((await run(provider)).pictures) == 1
    sim.faults.always("download", Fault(status=403))
    with pytest.raises(Undecodable, match="gone"):
        await run(provider)
    assert len(sim.bodies) == 2


@pytest.mark.parametrize("fault", [Fault(kind="endless"), Fault(status=200, body=bytes(1_000_001))])
async def test_an_endless_result_is_given_up(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """Bytes are counted while they come."""
    sim.faults.always("download", fault)
    with pytest.raises(Undecodable, match="larger than 1000000 bytes"):
        await run(provider)


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/latest", "https://127.0.0.1/", "ftp://example.com/a.png", "file:///etc/passwd"]
)
async def test_a_result_at_a_forbidden_address_is_not_fetched(
    provider: Replicate, sim: Simulator, address: str
) -> None:
    """What a provider answers is not trusted."""
    handle = await provider.submit(job())
    sim.jobs[handle.id].output = [address]
    with pytest.raises(Undecodable):
        await provider.wait(handle, soon())


async def test_the_key_stays_with_the_api(provider: Replicate, sim: Simulator) -> None:
    """It is sent to the configured origin alone: no redirect takes it elsewhere, and results do not get it."""
    handle = await provider.submit(job())
    away = Fault(status=307, headers={"location": sim.jobs[handle.id].output[0]})
    sim.faults.script("poll", away)
    await provider.wait(handle, soon())
    sim.faults.script("submit", away)
    with pytest.raises(Unknown):
        await provider.submit(job())

    assert sim.keys_at_delivery == []
    assert sim.books.billed == 1


async def test_a_result_at_the_api_is_fetched_with_the_key(provider: Replicate, sim: Simulator) -> None:
    """The API's own files ask for it; one that is not there is gone."""
    key = "a-file"
    sim.files[key] = ({"id": key}, PICTURE)
    handle = await provider.submit(job())
    sim.jobs[handle.id].output = f"{sim.url}/v1/files/{key}"
    assert (await provider.wait(handle, soon())).pictures == (b'{"id":"a-file"}',)
    sim.jobs[handle.id].output = f"{sim.url}/v1/files/none"
    with pytest.raises(Undecodable, match="gone"):
        await provider.wait(handle, soon())


async def test_readiness(client: httpx.AsyncClient, downloads: httpx.AsyncClient, sim: Simulator) -> None:
    """Without a key it is off and says which one is missing."""
    off = adapter(client, downloads, sim, key=None)
    assert off.readiness(UPSTREAM) == (Readiness.OFF, "REPLICATE_API_TOKEN is not set")
    on = adapter(client, downloads, sim)
    assert on.readiness(UPSTREAM) == (Readiness.READY, "")
    assert on.readiness(Upstream(model="../admin"))[0] is Readiness.OFF
