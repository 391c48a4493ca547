"""The adapter for Cog workers and whoever ordered the job: notes, webhooks, what is left of an earlier life, costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from normalization.values import Header, Image, Value
from providers.base import Handle, PendingSubmit, Readiness, Upstream, UpstreamJob, WebhookEvent
from providers.errors import Expired, Failed, ProviderError, Rejected, Throttled, Undecodable
from providers.local.adapter import LocalProvider
from tests.support import adapters
from tests.support.fake_cog import PNG, FakeCog, Play, answer, cut, data_uri, hold, served, until
from tests.support.links import Refused, Told, free_of_charge, refuse

UPSTREAM = Upstream(model="tile-diffusion")
WEBHOOK = "https://gateway.example/hooks/secret"
TAKES_WEBHOOKS: dict[str, Any] = {"properties": {"id": {}, "input": {}, "webhook": {}, "webhook_events_filter": {}}}


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


def job(name: str = "job-1", *, lasts: float = 5, **payload: Value) -> UpstreamJob:
    return UpstreamJob(id=name, upstream=UPSTREAM, payload=payload, deadline=soon(lasts))


def sent(name: str, data: Mapping[str, str] | None = None) -> PendingSubmit:
    return PendingSubmit(id=name, upstream=UPSTREAM, at=0.0, data=data or {})


@pytest.fixture
async def local(client: httpx.AsyncClient, cog: FakeCog) -> AsyncIterator[LocalProvider]:
    """The adapter before one scripted worker, which says that it takes webhooks."""
    assert cog.schema
    cog.schema["components"]["schemas"]["PredictionRequest"] = TAKES_WEBHOOKS
    provider = await ready(
        adapters.local_provider(client, workers=[cog.url], cancel_timeout_s=0.3, health_interval_s=60)
    )
    yield provider
    await provider.aclose()


async def ready(provider: LocalProvider) -> LocalProvider:
    await provider.start()
    await until(lambda: provider.readiness(UPSTREAM)[0] is Readiness.READY)
    return provider


async def test_the_note_comes_when_there_is_a_place_and_before_the_request(local: LocalProvider, cog: FakeCog) -> None:
    """It names the worker, and nothing has been sent to that by then."""
    cog.play = hold
    first = await local.submit(job("first"))
    await until(lambda: cog.at_work)
    seen: list[tuple[int, int]] = []
    told = Told(before=lambda: seen.append((local.in_flight, len(cog.jobs))))
    waiting = asyncio.create_task(local.submit(job("second"), told))
    await until(lambda: local.queue_depth == 1)
    assert told.notes == []
    await local.cancel(first)
    handle = await waiting
    assert told.notes == [{"worker": cog.url}]
    # The place is taken, and only the first job was ever sent.
    assert seen == [(1, 1)]
    assert handle.held
    assert local.cancels
    await local.cancel(handle)


async def test_without_its_note_a_job_is_not_sent_and_its_place_is_free(local: LocalProvider, cog: FakeCog) -> None:
    """What cannot be written down is not begun; the next job finds the slot."""
    with pytest.raises(Refused):
        await local.submit(job("never"), Told(before=refuse))
    assert local.in_flight == 0
    assert (await local.wait(await local.submit(job("next")), soon())).images == (PNG,)
    assert cog.jobs == ["next"]


async def test_a_caller_that_leaves_at_its_note_leaves_no_place_behind(local: LocalProvider, cog: FakeCog) -> None:
    """A submit that is cancelled while the note is written gives its slot back too."""

    class Slow(Told):
        async def sending(self, data: Mapping[str, str]) -> None:
            await asyncio.sleep(30)

    submitting = asyncio.create_task(local.submit(job(), Slow()))
    await until(lambda: local.in_flight == 1)
    submitting.cancel()
    await asyncio.wait({submitting})
    assert (local.in_flight, cog.jobs) == (0, [])


async def test_nothing_is_noted_where_nothing_is_sent(local: LocalProvider, cog: FakeCog) -> None:
    """Pictures that are too large, no place in time, and a job that is joined: no request follows."""
    told = Told()
    large = Image(data=bytes(80 * 1024 * 1024), header=Header(format="png", width=1, height=1))
    with pytest.raises(Rejected):
        await local.submit(job(image=large), told)
    cog.play = hold
    handle = await local.submit(job("same"))
    assert await local.submit(job("same"), told) == handle
    with pytest.raises(Throttled):
        await local.submit(job("late", lasts=0.05), told)
    assert told.notes == []


async def test_a_webhook_is_for_progress_alone(local: LocalProvider, cog: FakeCog) -> None:
    """The result comes by the connection, so neither outputs nor the end are asked for."""
    handle = await local.submit(job(seed=7), Told(webhook=WEBHOOK))
    assert (await local.wait(handle, soon())).images == (PNG,)
    assert cog.bodies == [{"input": {"seed": 7}, "webhook": WEBHOOK, "webhook_events_filter": ["start", "logs"]}]


@pytest.mark.parametrize(
    "request_schema",
    [
        None,
        {"properties": {"id": {}, "input": {}}},
        {"properties": {"webhook": {}}},
        {"properties": []},
        "webhook",
    ],
)
async def test_a_worker_that_takes_no_webhooks_is_given_none(
    client: httpx.AsyncClient, cog: FakeCog, request_schema: Any
) -> None:
    """Ours refuses one unless it was told to allow them, and says so in its document."""
    assert cog.schema
    cog.schema["components"]["schemas"]["PredictionRequest"] = request_schema
    local = await ready(adapters.local_provider(client, workers=[cog.url], health_interval_s=60))
    await local.wait(await local.submit(job(), Told(webhook=WEBHOOK)), soon())
    await local.aclose()
    assert cog.bodies == [{"input": {}}]


async def test_large_pictures_go_without_a_webhook(local: LocalProvider, cog: FakeCog) -> None:
    """Old servers send the whole input along each time."""
    image = Image(data=bytes(1_000_000), header=Header(format="png", width=1, height=1))
    await local.wait(await local.submit(job(image=image), Told(webhook=WEBHOOK)), soon())
    await local.wait(await local.submit(job("plain")), soon())
    assert [set(body) for body in cog.bodies] == [{"input"}, {"input"}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"id": "job-1", "status": "processing", "logs": " 42%|## | 21/50"}, WebhookEvent(id="job-1", progress=0.42)),
        ({"id": "job-1-again", "status": "processing", "logs": ""}, WebhookEvent(id="job-1")),
        ({"id": "job-1", "status": "starting"}, WebhookEvent(id="job-1")),
        ({"id": "job-1", "status": "x", "logs": 5, "input": {"image": data_uri(PNG)}}, WebhookEvent(id="job-1")),
        ({"id": "job-1"}, None),
        ({"id": 5, "status": "processing"}, None),
        ({"id": "", "status": "processing"}, None),
        ({"id": "x" * 1000, "status": "processing"}, None),
        ({"id": "job-1", "status": 5}, None),
        ([], None),
        (5, None),
        (None, None),
    ],
)  # fmt: skip
async def test_a_webhook_says_how_much_is_done(local: LocalProvider, body: object, said: WebhookEvent | None) -> None:
    """Whose it is and how far that is; everything else is no webhook of a worker's."""
    assert await local.parse_webhook({}, json.dumps(body).encode()) == said


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"{", b"[" * 100_000, bytes(2_000_000), b'{"id": "a", "status": "b"']
)
async def test_garbage_says_nothing(local: LocalProvider, body: bytes) -> None:
    """Huge, not text, not JSON: nobody falls over."""
    assert await local.parse_webhook({}, body) is None


async def test_a_huge_webhook_is_not_read(local: LocalProvider) -> None:
    """One megabyte is more than any log needs."""
    body = json.dumps({"id": "job-1", "status": "processing", "logs": "x" * 1_000_000}).encode()
    assert await local.parse_webhook({}, body) is None


async def test_a_crash_between_the_request_and_its_answer(
    client: httpx.AsyncClient, local: LocalProvider, cog: FakeCog
) -> None:
    """The heir stops what the dead one began: its result is lost, and it has to be made again, once."""
    cog.play = hold
    told = Told()
    handle = await local.submit(job(), told)
    await until(lambda: cog.at_work)
    heir = await ready(adapters.local_provider(client, workers=[cog.url], health_interval_s=60))
    assert await heir.recover(sent(handle.id, told.notes[0])) is None
    await until(lambda: not cog.at_work)
    assert sorted(cog.cancelled) == ["job-1", "job-1-again"]
    with pytest.raises(Failed, match="cancelled"):
        await local.wait(handle, soon())
    await heir.aclose()


async def test_what_a_crash_left_is_stopped_wherever_it_is(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A job may have moved on to another worker, and a worker may be gone: finding never fails for that."""
    async with served(FakeCog()) as other:
        heir = adapters.local_provider(client, workers=[cog.url, other.url, "http://127.0.0.1:9"], cancel_timeout_s=0.5)
        assert await heir.recover(sent("job-1", {"worker": cog.url})) is None
        assert await heir.recover(sent("job-2")) is None
        assert set(cog.cancelled) == set(other.cancelled) == {"job-1", "job-1-again", "job-2", "job-2-again"}


async def test_a_stored_handle_of_an_earlier_life_costs_nothing(
    client: httpx.AsyncClient, local: LocalProvider, cog: FakeCog
) -> None:
    """A second adapter cannot wait for a held job: it says so, at no cost, and the worker is free."""
    cog.play = hold
    handle = await local.submit(job())
    await until(lambda: cog.at_work)
    stored = Handle(**json.loads(json.dumps({"provider": "local", "id": handle.id, "data": dict(handle.data)})))
    heir = adapters.local_provider(client, workers=[cog.url])
    with pytest.raises(Failed, match="lost") as caught:
        await heir.wait(stored, soon())
    assert free_of_charge(caught.value)
    await until(lambda: not cog.at_work)


async def test_a_job_of_this_process_is_found(local: LocalProvider, cog: FakeCog) -> None:
    """It is simply there, and is not stopped."""
    cog.play = hold
    handle = await local.submit(job())
    assert await local.recover(replace(sent("job-1"), heard="job-1")) == handle
    assert cog.cancelled == []
    await local.cancel(handle)


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (answer(200, {"status": "failed", "error": "x"}), Failed),
        (answer(422, {"detail": "x"}), Rejected),
        (answer(200, b"{"), Undecodable),
        (cut, Failed),
    ],
)
async def test_no_error_costs_anything(
    local: LocalProvider, cog: FakeCog, play: Play, kind: type[ProviderError]
) -> None:
    """The GPU is the user's own."""
    cog.play = play
    with pytest.raises(kind) as caught:
        await local.wait(await local.submit(job()), soon())
    assert free_of_charge(caught.value)


async def test_after_a_cancel_wait_tells_the_truth_at_once(local: LocalProvider, cog: FakeCog) -> None:
    """Cancelled, at no cost, and long before the deadline."""
    cog.play = hold
    handle = await local.submit(job())
    await until(lambda: cog.at_work)
    await local.cancel(handle)
    with pytest.raises(Expired, match="cancelled") as caught:
        await local.wait(handle, soon(600))
    assert free_of_charge(caught.value)
