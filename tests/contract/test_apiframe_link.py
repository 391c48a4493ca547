"""Apiframe: jobs that are found after a crash, webhooks that are heard, progress and bills that are told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from typing_extensions import override

from normalization.values import Header, Image, Value
from providers.apiframe.adapter import Apiframe
from providers.base import PendingSubmit, Upstream, UpstreamJob, WebhookEvent
from providers.clock import CLOCK, Clock
from providers.errors import Blocked, Failed, ProviderError, Unknown
from providers.http import client as http
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from tests.simulators import apiframe as simulator
from tests.simulators.apiframe import KEY, signed
from tests.simulators.common import Fault, html, size, tiny
from tests.support import adapters
from tests.support.clock import Skipping
from tests.support.fake_cog import until
from tests.support.linked import Door, Refused, Told, bill, crashed, door, stored

CLARITY = Upstream(
    model="clarity-upscale", options={"params": "clarityUpscaleParams", "usd_per_credit": simulator.USD_PER_CREDIT}
)
PICTURE = Image(data=tiny(), header=Header(format="png", width=24, height=16))
WANTED: dict[str, Value] = {"image": PICTURE, "scale_factor": 2, "seed": 7, "prompt": "größer 🙂"}
NOBODY = "00000000-0000-4000-8000-000000000000"


def later() -> float:
    """A deadline that nobody comes to: an hour from now, on a clock on which waits take no time."""
    return asyncio.get_running_loop().time() + 3600


def job() -> UpstreamJob:
    return UpstreamJob(id="dr-job-1", upstream=CLARITY, payload=WANTED, deadline=later())


@pytest.fixture
def sim(apiframe_host: simulator.Apiframe) -> Iterator[simulator.Apiframe]:
    """The provider. Whatever a test does, no job is paid twice."""
    apiframe_host.reset()
    yield apiframe_host
    assert apiframe_host.books.billed <= 1


@pytest.fixture
def hooks() -> Iterator[Door]:
    with door() as made:
        yield made


@asynccontextmanager
async def adapter(sim: simulator.Apiframe, **changes: Any) -> AsyncIterator[Apiframe]:
    """The adapter of one process."""
    url_policy, clock = UrlPolicy(allow=sim.origins), Skipping()
    settings: dict[str, Any] = {"key": KEY, "pace": Pace(clock), "base_url": sim.url, "clock": clock, **changes}
    async with http.client() as api, downloads_client(url_policy) as downloads:
        yield adapters.apiframe(http=api, downloads=downloads, url_policy=url_policy, **settings)


@pytest.fixture
async def provider(sim: simulator.Apiframe) -> AsyncIterator[Apiframe]:
    async with adapter(sim) as made:
        yield made


async def lost(sim: simulator.Apiframe, *, taken: bool = True, webhook: str | None = None) -> PendingSubmit:
    """A submit of a process that died before its answer."""
    sim.faults.script("submit", Fault(kind="hang", after=taken))
    async with adapter(sim) as first:
        arrived = (lambda: sim.books.taken) if taken else (lambda: sim.books.count("POST", "upscale"))
        return await crashed(first, job(), Told(webhook), arrived)


async def test_what_is_sent_is_written_down_first(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """Once, after the upload and before the submit: the very body, which has addresses in the place of pictures."""

    class Counting(Told):
        @override
        async def sending(self, data: Any) -> None:
            self.at_sending = [sim.books.count("POST", "uploads"), sim.books.count("POST", "upscale")]
            await super().sending(data)

    link = Counting()
    await provider.submit(job(), link)
    assert link.at_sending == [1, 0]
    (data,) = link.sent
    assert data["body"].encode() == sim.seen[-1].body
    assert all(isinstance(value, str) for value in data.values())
    assert len(str(data)) < 1000
    assert KEY not in str(data)


async def test_where_it_cannot_be_written_down_nothing_is_sent(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """What `sending` raises stops the submit."""
    with pytest.raises(Refused):
        await provider.submit(job(), Told(refuses=True))
    assert sim.books.count("POST", "upscale") == 0


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
async def test_a_job_is_found_by_another_process(sim: simulator.Apiframe, hooks: Door, taken: bool) -> None:
    """The same submit under the same key gives the first job, and where there was none buys it: once."""
    sent = await lost(sim, taken=taken, webhook=hooks.url)
    assert len(sim.books.taken) == int(taken)
    async with adapter(sim) as second:
        handle = stored(await second.recover(sent))
        outcome = await second.wait(handle, later())
    assert (size(outcome.images[0]), outcome.cost) == ((48, 32), 30_000)
    assert sim.books.taken == [handle.id]
    first, again = (seen for seen in sim.seen if seen.path == "/v2/images/upscale")
    assert first.body == again.body
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] == "dr-job-1"
    assert sim.books.count("POST", "uploads") == 1


async def test_a_job_is_found_as_often_as_it_is_looked_for(sim: simulator.Apiframe) -> None:
    """Through lost answers and refusals, which settle nothing."""
    sent = await lost(sim)
    async with adapter(sim) as second:
        sim.faults.script("submit", Fault(kind="cut", after=True), Fault(status=401, body={"error": "no"}))
        handles = [stored(await second.recover(sent)) for _ in range(2)]
    assert [handle.id for handle in handles] == sim.books.taken * 2


@pytest.mark.parametrize(
    "fault",
    [
        html(502),
        Fault(status=400, body={"error": "Could not read the input image"}),
        Fault(status=402),
        Fault(status=409),
    ],
    ids=lambda fault: str(fault.status),
)
async def test_what_no_repeat_settles_is_unknown(sim: simulator.Apiframe, fault: Fault) -> None:
    """A refusal may come from what stands before the place where keys are looked up."""
    sent = await lost(sim)
    sim.faults.always("submit", fault)
    async with adapter(sim) as second:
        with pytest.raises(Unknown):
            await second.recover(sent)
    assert sim.books.count("POST", "upscale") == 5


@pytest.mark.parametrize("changes", [{"at": 23.1}, {"at": -23.1}, {"data": {}}])
async def test_a_key_that_is_not_honoured_any_more_buys_nothing(
    sim: simulator.Apiframe, changes: dict[str, Any]
) -> None:
    """After 23 hours, by a clock that is far off, or without the body, nothing is sent."""
    sent = await lost(sim)
    if "at" in changes:
        changes = {"at": time.time() - 3600 * changes["at"]}
    async with adapter(sim) as second:
        with pytest.raises(Unknown, match="not honoured"):
            await second.recover(dataclasses.replace(sent, **changes))
    assert sim.books.count("POST", "upscale") == 1


async def test_a_job_that_a_webhook_told_of_needs_no_submit(sim: simulator.Apiframe) -> None:
    """Not even when its key has run out; what is no id is not taken for one."""
    sent = await lost(sim)
    old = dataclasses.replace(sent, at=sent.at - 3600 * 30, heard=sim.books.taken[0])
    async with adapter(sim) as second:
        handle = stored(await second.recover(old))
        assert (await second.wait(handle, later())).cost == 30_000
        assert sim.books.count("POST", "upscale") == 1
        assert stored(await second.recover(dataclasses.replace(sent, heard="../me"))).id == handle.id


async def run_to_its_end(sim: simulator.Apiframe, hooks: Door) -> None:
    """Let the 100 seconds of a job pass, with a message after each fifth of them."""
    for count in range(1, 5):
        sim.later(20)
        await until(partial(_have_come, hooks, count))
    sim.later(20)
    await until(lambda: "completed" in hooks.events("event"))


def _have_come(hooks: Door, count: int) -> bool:
    return len(hooks.came) >= count


@pytest.mark.parametrize("form", ["raw", "hex"])
async def test_a_job_with_a_webhook_tells_of_itself(sim: simulator.Apiframe, hooks: Door, form: Any) -> None:
    """How far it is and that it ended come signed, in one form of the secret or the other, and each is read."""
    sim.run_s, sim.hook_key = 100, form
    async with adapter(sim) as provider:
        handle = await provider.submit(job(), Told(hooks.url))
        assert sim.seen[-1].json["webhookUrl"] == hooks.url
        assert sim.seen[-1].json["webhookEvents"] == ["progress", "completed", "failed"]
        await run_to_its_end(sim, hooks)
        heard = [await provider.parse_webhook(headers, body) for headers, body in hooks.came]
    assert {item.id for item in heard if item} == {handle.id}
    shares = [item.progress for item in heard if item and item.progress is not None]
    assert len(shares) == len(hooks.came) > 3
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


async def test_a_failed_job_is_heard_of(provider: Apiframe, sim: simulator.Apiframe, hooks: Door) -> None:
    """Its message names the job alone."""
    sim.faults.script("job", Fault(kind="job", word="FAILED"))
    handle = await provider.submit(job(), Told(hooks.url))
    await until(lambda: hooks.came)
    assert await provider.parse_webhook(*hooks.came[0]) == WebhookEvent(id=handle.id)


async def test_messages_that_come_twice_and_in_disorder(sim: simulator.Apiframe, hooks: Door) -> None:
    """They are heard all the same."""
    sim.run_s, sim.postman.copies, sim.postman.shuffled = 0.1, 2, True
    async with adapter(sim) as provider:
        await provider.submit(job(), Told(hooks.url))
        await until(lambda: hooks.events("event").count("progress") >= 4)
        assert hooks.events("event")[:3] == ["completed", "completed", "progress"]
        assert all([await provider.parse_webhook(headers, body) for headers, body in hooks.came])


async def test_forged_messages_are_not_believed(provider: Apiframe, sim: simulator.Apiframe, hooks: Door) -> None:
    """They come to the same door, and are signed with another's key."""
    sim.run_s, sim.postman.forged = 100, True
    await provider.submit(job(), Told(hooks.url))
    await run_to_its_end(sim, hooks)
    assert len(hooks.came) > 3
    assert not any([await provider.parse_webhook(headers, body) for headers, body in hooks.came])


async def test_only_a_safe_address_is_given_away(sim: simulator.Apiframe, hooks: Door) -> None:
    """Apiframe itself is told of HTTPS alone; plain HTTP is for the simulator."""
    async with adapter(sim, base_url="https://api.apiframe.example") as real:
        assert real._reporting(Told(hooks.url)) == {}
        assert real._reporting(Told()) == {}
        assert real._reporting(Told("https://gateway.example/h"))["webhookUrl"] == "https://gateway.example/h"


GOOD = json.dumps({"event": "progress", "jobId": NOBODY, "progress": 45}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b"{}",
        b'{"jobId": 7}',
        b'{"jobId": "../me"}',
    ],
    ids=lambda body: str(body[:12]),
)
async def test_a_signed_message_that_makes_no_sense_is_none(provider: Apiframe, body: bytes) -> None:
    """It raises nothing."""
    assert await provider.parse_webhook(signed(KEY, "raw", body), body) is None


async def test_what_is_not_signed_with_our_key_is_none(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """Without a signature, with a wrong one, for another body, and where we have no key."""
    good = signed(KEY, "hex", GOOD)
    assert await provider.parse_webhook(good, GOOD) == WebhookEvent(id=NOBODY, progress=0.45)
    wrong = [{}, {"x-webhook-signature": "größer"}, {"x-webhook-signature": "sha256="}, signed("", "raw", GOOD)]
    for headers in wrong:
        assert await provider.parse_webhook(headers, GOOD) is None
    assert await provider.parse_webhook(good, GOOD + b" ") is None
    huge = b'{"jobId": "' + b"x" * 5_000_000 + b'"}'
    assert await provider.parse_webhook(signed(KEY, "raw", huge), huge) is None
    async with adapter(sim, key=None) as off:
        assert await off.parse_webhook(signed("", "raw", GOOD), GOOD) is None


async def test_progress_is_told_as_it_is_shown(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """Growing, up to the end, between looks that the link sleeps."""
    sim.queue_s, sim.run_s = 5, 30

    class Passing(Told):
        @override
        async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
            await super().sleep(seconds, clock)
            sim.later(seconds)

    link = Passing()
    handle = await provider.submit(job())
    await provider.wait(handle, later(), link)
    assert link.shares == sorted(set(link.shares))
    assert len(link.shares) > 3
    assert link.shares[-1] == 1.0
    assert link.slept > 3


async def test_progress_never_goes_back_and_nonsense_is_ignored(provider: Apiframe, sim: simulator.Apiframe) -> None:
    """It may be a number of any kind, text, or nothing."""
    handle = await provider.submit(job())
    told: list[Any] = [60, 5, None, "70", True, -1, 101, 1e999, [80], 80.5, 60]
    state = {"id": handle.id, "status": "PROCESSING"}
    bodies = [json.dumps({**state, "progress": value}) for value in told]
    sim.faults.script("poll", *(Fault(status=200, body=body) for body in bodies))
    link = Told()
    await provider.wait(handle, later(), link)
    assert link.shares == [0.6, 0.805, 1.0]


@pytest.mark.parametrize(
    ("word", "fails", "kind"),
    [("FAILED", "out of memory", Failed), ("FAILED", "content policy", Blocked), ("CANCELLED", "", Failed)],
)
async def test_a_failed_job_is_free(
    provider: Apiframe, sim: simulator.Apiframe, word: str, fails: str, kind: type[ProviderError]
) -> None:
    """Its credits are given back."""
    sim.fails = fails
    sim.faults.script("job", Fault(kind="job", word=word))
    handle = await provider.submit(job())
    await provider.cancel(handle)
    with pytest.raises(kind) as caught:
        await provider.wait(handle, later())
    assert bill(caught.value) == (0, False)
    assert sim.books.billed == 0
    assert not Apiframe.cancels


async def test_who_comes_back_looks_at_once(sim: simulator.Apiframe) -> None:
    """A job that was submitted long ago has probably ended."""

    class Hours(Pace):
        @override
        def delays(self, key: str, *, age: float = 0.0) -> Iterator[float]:
            while True:
                yield 3600.0

    async with adapter(sim) as first:
        handle = await first.submit(job())
    old = dataclasses.replace(handle, data={**handle.data, "submitted": f"{time.time() - 60:.3f}"})
    clock = Skipping()
    async with adapter(sim, pace=Hours(clock), clock=clock) as second:
        assert (await second.wait(old, clock.after(60))).cost == 30_000
    assert clock.slept[0] == 0
