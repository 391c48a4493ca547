"""The adapter for fal's synchronous host: one request, whose answer is the result."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from providers.base import Handle
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
from providers.fal.adapter import Fal
from tests.contract.fal_setup import CLARITY, SECRET, adapter, begun, job, no_key_went_astray, run, soon
from tests.simulators.common import Fault, html, size, tiny
from tests.simulators.fal import KEY, FalAi
from tests.support.fake_cog import data_uri, until
from tests.support.ports import dead_port


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim, mode="run") as made:
        yield made


async def test_one_request_and_its_answer(fal: Fal, sim: FalAi) -> None:
    """The same body and headers as in the queue, at the other host, and nothing is asked about it."""
    outcome = await run(fal, seconds=30, upscale_factor=3)
    assert size(outcome.images[0]) == (72, 48)
    assert outcome.cost == 104
    (seen,) = sim.asked("POST", host="run")
    assert seen.path == f"/{CLARITY}"
    assert seen.json == {"image_url": data_uri(tiny()), "prompt": SECRET, "upscale_factor": 3}
    assert seen.headers["authorization"] == f"Key {KEY}"
    assert seen.headers["x-fal-no-retry"] == "1"
    assert seen.headers["x-app-fal-disable-fallback"] == "true"
    assert seen.headers["x-fal-request-timeout"] == "30"
    assert [seen.host for seen in sim.seen] == ["run", "media"]
    assert no_key_went_astray(sim)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=401, body={"detail": "x"}), Unusable),
        (Fault(status=403, body={"detail": "User is locked. Reason: Exhausted balance."}), Unusable),
        (Fault(status=404, body={"detail": "Path /x not found"}), Failed),
        (Fault(status=429, body={"detail": "x", "error_type": "concurrent_requests_limit"}), Throttled),
        (Fault(status=500, body={"detail": "x"}), Failed),
        (html(503), Failed),
        (html(500), Unknown),
        (html(502), Unknown),
        (html(504), Unknown),
        (Fault(status=200, body=b""), Unknown),
        (Fault(status=200, body=b"<html>"), Unknown),
        (Fault(status=200, body={"detail": "x"}), Unknown),
        (Fault(status=200, body={"image": None}), Undecodable),
        (Fault(kind="cut"), Unknown),
        (Fault(kind="cut", after=True), Unknown),
        (Fault(kind="cut_within"), Unknown),
        (Fault(kind="truncate"), Unknown),
    ],
)
async def test_an_answer_that_is_no_result(fal: Fal, sim: FalAi, fault: Fault, kind: type[ProviderError]) -> None:
    """Lost is Unknown, as there is nobody to ask; the request is sent once."""
    sim.faults.script("submit", fault)
    with pytest.raises(kind) as caught:
        await run(fal)
    assert type(caught.value) is kind
    assert len(sim.seen) == 1
    assert sim.books.billed <= 1


@pytest.mark.parametrize(
    ("word", "kind"),
    [("POLICY", Blocked), ("FAILED", Failed), ("GPU", Failed), ("RUNNER", Failed), ("SLOW_START", Expired)],
)
async def test_a_job_that_fails(fal: Fal, sim: FalAi, word: str, kind: type[ProviderError]) -> None:
    """fal's own errors are believed, 504 too, for they say what became of the job."""
    sim.faults.script("job", Fault(kind="job", word=word))
    with pytest.raises(kind) as caught:
        await run(fal)
    assert type(caught.value) is kind
    assert SECRET not in repr(caught.value)
    assert sim.books.billed == 0


async def test_bad_input_is_rejected(fal: Fal) -> None:
    """Without a word of the input."""
    with pytest.raises(Rejected, match="image_url: Field required") as caught:
        await run(fal, image_url=None)
    assert SECRET not in repr(caught.value)


async def test_no_connection_is_unreached(sim: FalAi) -> None:
    """Nothing was sent."""
    async with adapter(sim, mode="run", run_url=f"http://127.0.0.1:{dead_port()}") as fal:
        with pytest.raises(Unreached):
            await run(fal)


@pytest.mark.parametrize("word", ["MOVED", "LOST"])
async def test_a_picture_that_is_gone_is_to_be_fetched(fal: Fal, sim: FalAi, word: str) -> None:
    """There is no job to ask for another address, and it is paid for: the one that is known is tried again."""
    sim.faults.script("job", Fault(kind="job", word=word))
    handle = await begun(fal)
    with pytest.raises(Unfetched, match="HTTP 404"):
        await fal.wait(handle, soon())
    sim.files.gone.clear()
    assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert sim.books.billed == 1


async def test_at_the_deadline_it_is_unknown(fal: Fal, sim: FalAi) -> None:
    """Hanging up does not stop the job, so nothing may be bought: neither wait nor cancel says that it ended."""
    sim.run_s = 30
    handle = await begun(fal)
    with pytest.raises(Unknown, match="may go on"):
        await fal.wait(handle, soon(0.2))
    short = await fal.submit(job(seconds=0.2))
    with pytest.raises(Unknown):
        await fal.wait(short, soon())


async def test_a_download_at_the_deadline_is_made_again(fal: Fal, sim: FalAi) -> None:
    """The picture is paid for: its address is kept for whoever comes back for it."""
    sim.faults.always("download", Fault(kind="hang"))
    handle = await begun(fal)
    with pytest.raises(Unfetched, match="deadline passed while the result was fetched"):
        await fal.wait(handle, soon(0.5))
    sim.faults.clear()
    assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert sim.books.billed == 1


async def test_cancel_of_a_request_at_work_is_unknown(fal: Fal, sim: FalAi) -> None:
    """fal goes on without us, perhaps; whoever waits hears the same."""
    sim.run_s = 30
    handle = await begun(fal)
    await until(lambda: sim.books.taken)
    with pytest.raises(Unknown):
        await fal.cancel(handle)
    with pytest.raises(Unknown):
        await fal.wait(handle, soon())


async def test_cancel_of_a_lost_answer_says_so(fal: Fal, sim: FalAi) -> None:
    """It did end for us, and nobody knows how."""
    sim.faults.script("submit", Fault(kind="cut", after=True))
    handle = await begun(fal)
    await until(lambda: fal._held._tasks["dr-1"].done())
    with pytest.raises(Unknown):
        await fal.cancel(handle)


async def test_cancel_of_a_job_that_ended_is_harmless(fal: Fal, sim: FalAi) -> None:
    """Its picture stays for who waits."""
    handle = await begun(fal)
    await until(lambda: fal._held._tasks["dr-1"].done())
    await fal.cancel(handle)
    assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    await fal.cancel(handle)


async def test_a_job_of_another_process_is_unknown(fal: Fal) -> None:
    """Its answer went to a connection that is gone."""
    with pytest.raises(Unknown, match="not of this process"):
        await fal.wait(Handle(provider="fal", id="dr-9", data={"mode": "run", "model": CLARITY}), soon())


async def test_closing_ends_what_is_open(sim: FalAi) -> None:
    """A gateway that stops does not wait for jobs that nobody can have any more."""
    sim.run_s = 30
    async with adapter(sim, mode="run") as fal:
        await begun(fal)
        await until(lambda: sim.books.taken)
    assert fal._held._tasks == {}


async def test_a_large_picture_is_uploaded_here_too(sim: FalAi) -> None:
    """The synchronous host has the same limit."""
    async with adapter(sim, mode="run", data_uri_bytes=10) as fal:
        assert size((await run(fal)).images[0]) == (48, 32)
    assert sim.asked("POST", host="run")[0].json["image_url"].startswith(sim.media_url)
