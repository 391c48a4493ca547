"""The adapter for Replicate, against a simulated one over real HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.base import Handle, Readiness, Upstream, UpstreamJob
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
from providers.replicate.adapter import Replicate
from tests.contract.replicate_setup import DATA_URI, IMAGE, PICTURE, UPSTREAM, Joint, adapter, job, run, soon
from tests.simulators.common import Fault, html, size
from tests.simulators.replicate import TOKEN, USD_PER_SECOND, Simulator
from tests.simulators.replicate_models import CLARITY
from tests.support.fake_cog import until

OFFICIAL = Upstream(model="topazlabs/image-upscale")


@pytest.fixture
def sim(running_replicate: Simulator) -> Simulator:
    running_replicate.reset()
    return running_replicate


@pytest.fixture
def clock(sim: Simulator) -> Joint:
    return Joint(sim)


@pytest.fixture
async def provider(sim: Simulator, clock: Joint) -> AsyncIterator[Replicate]:
    async with adapter(sim, clock=clock) as made:
        yield made


async def test_a_job_is_one_submit_of_the_pinned_version_and_its_result_is_the_larger_picture(
    provider: Replicate, sim: Simulator
) -> None:
    """The exact request goes out, the picture comes back enlarged, and the cost is the time that Replicate bills."""
    outcome = await run(provider, job(seconds=10))

    assert [size(data) for data in outcome.images] == [(48, 32)]
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
    given = UpstreamJob(id="a", upstream=OFFICIAL, payload={"image": IMAGE, "upscale_factor": "4x"}, deadline=soon())

    outcome = await run(provider, given)

    assert sim.books.requests[0] == ("POST", "/v1/models/topazlabs/image-upscale/predictions")
    assert sim.bodies == [{"input": {"image": DATA_URI, "upscale_factor": "4x"}}]
    assert size(outcome.images[0]) == (96, 64)
    assert outcome.cost is None


async def test_a_community_model_without_its_version_is_not_there(provider: Replicate, sim: Simulator) -> None:
    """A table that forgets the version meets Replicate's 404, which blames nobody's input."""
    with pytest.raises(Failed, match="404"):
        await run(provider, job(upstream=Upstream(model="philz1337x/clarity-upscaler")))
    assert sim.books.taken == []


async def test_a_large_picture_is_uploaded_first(sim: Simulator) -> None:
    """Above the limit the picture goes to the Files API, byte for byte, and the input has its address there."""
    async with adapter(sim, data_uri_bytes=10) as provider:
        await run(provider, job(mask=IMAGE, several=[IMAGE]))

    given = sim.bodies[0]["input"]
    addresses = [given["image"], given["mask"], *given["several"]]
    assert all(re.fullmatch(re.escape(sim.url) + r"/v1/files/[\w-]+", address) for address in addresses)
    kept = [sim.files[address.rpartition("/")[2]] for address in addresses]
    assert {data for _, data in kept} == {PICTURE}
    assert {(about["name"], about["content_type"]) for about, _ in kept} == {("attempt-1.png", "image/png")}


@pytest.mark.parametrize("fault", [html(502), Fault(kind="cut"), Fault(body={"detail": "later"}, status=503)])
async def test_an_upload_is_tried_again(sim: Simulator, fault: Fault) -> None:
    """An upload buys nothing, so a failed one is repeated before the job is."""
    sim.faults.script("upload", fault)
    async with adapter(sim, data_uri_bytes=10) as provider:
        outcome = await run(provider)

    assert len(outcome.images) == 1
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
    sim: Simulator, fault: Fault, kind: type[ProviderError]
) -> None:
    """Nothing is bought where the picture did not arrive."""
    sim.faults.always("upload", fault)
    async with adapter(sim, data_uri_bytes=10) as provider:
        with pytest.raises(kind):
            await run(provider)
    assert sim.bodies == []


@pytest.mark.parametrize("shape", ["string", "list", "dict"])
@pytest.mark.parametrize("wait_s", [0, 5])
async def test_every_shape_of_output_is_read(sim: Simulator, shape: Any, wait_s: int) -> None:
    """One address, a list and an object of addresses give the picture, whether the submit was held open or not."""
    sim.shape = shape
    async with adapter(sim, wait_s=wait_s) as provider:
        outcome = await run(provider)
    assert [size(data) for data in outcome.images] == [(48, 32)]


async def test_pictures_inside_of_the_answer_need_no_download(provider: Replicate, sim: Simulator) -> None:
    """A data URI as output is the picture."""
    handle = await provider.submit(job())
    prediction = sim.jobs[handle.id]
    prediction.output = [prediction.inline[0]]
    outcome = await provider.wait(handle, soon())

    assert size(outcome.images[0]) == (48, 32)


async def test_a_submit_that_is_held_open_is_an_optimisation_only(sim: Simulator) -> None:
    """Done in time the first look finds it; not done in time it is polled for like any other."""
    async with adapter(sim, wait_s=1) as held:
        first = await run(held)
        assert sim.headers[0]["prefer"] == "wait=1"
        assert sim.books.count("GET", "/v1/predictions/") == 1
        sim.run_s = 1.4
        second = await run(held)

    assert len(first.images) == len(second.images) == 1
    assert first.cost
    assert second.cost
    assert sim.books.billed == 2


async def test_a_handle_is_enough_in_another_process(sim: Simulator) -> None:
    """Stored as plain strings, it is waited for by an adapter that knows nothing of the submit."""
    async with adapter(sim) as first:
        handle = await first.submit(job())
    assert all(isinstance(value, str) for value in handle.data.values())
    stored = Handle(provider=handle.provider, id=handle.id, data=dict(handle.data))
    async with adapter(sim) as second:
        outcome = await second.wait(stored, soon())

    assert len(outcome.images) == 1
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

    assert len(outcome.images) == 1
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


async def test_a_job_that_was_done_before_its_cancel_is_a_result(
    provider: Replicate, sim: Simulator, clock: Joint
) -> None:
    """The deadline came first, the polls were lost, and the paid picture is delivered all the same."""
    sim.faults.always("poll", html(502))
    handle = await provider.submit(job())
    outcome = await provider.wait(handle, clock.after(0.4))

    assert size(outcome.images[0]) == (48, 32)
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
    await until(lambda: sim.jobs[done.id].status == "succeeded")
    await provider.cancel(done)

    assert len((await provider.wait(done, soon())).images) == 1


async def test_a_job_that_never_began_is_aborted_by_its_own_deadline(provider: Replicate, sim: Simulator) -> None:
    """Replicate stops it without our doing, which costs nothing."""
    sim.boot_s = 60
    handle = await provider.submit(job(seconds=1))
    assert sim.headers[0]["cancel-after"] == "5s"
    sim.jobs[handle.id].cancel_after_s = 0.05
    with pytest.raises(Failed, match="was aborted"):
        await provider.wait(handle, soon())
    assert sim.books.billed == 0


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
    """The API's own files ask for it; one that is not there is asked for again, and stays to be fetched."""
    key = "a-file"
    sim.files[key] = ({"id": key}, PICTURE)
    handle = await provider.submit(job())
    sim.jobs[handle.id].output = f"{sim.url}/v1/files/{key}"
    assert (await provider.wait(handle, soon())).images == (b'{"id":"a-file"}',)
    sim.jobs[handle.id].output = f"{sim.url}/v1/files/none"
    with pytest.raises(Unfetched, match="HTTP 404"):
        await provider.wait(handle, soon())


async def test_readiness(sim: Simulator) -> None:
    """Without a key it is off and says which one is missing."""
    async with adapter(sim, key=None) as off:
        assert off.readiness(UPSTREAM) == (Readiness.OFF, "REPLICATE_API_TOKEN is not set")
    async with adapter(sim) as on:
        assert on.queue_depth == 0
        assert on.readiness(UPSTREAM) == (Readiness.READY, "")
        assert on.readiness(Upstream(model="../admin"))[0] is Readiness.OFF
