"""The adapter for Cog workers: one job from its submit to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from starlette.responses import Response
from typing_extensions import override

from normalization.values import Header, Image, Value
from providers.base import Handle, Outcome, Readiness, Upstream, UpstreamJob
from providers.errors import Expired, Failed, ProviderError, Rejected, Throttled, Undecodable, Unreached
from providers.http import client as http
from providers.local.adapter import LocalProvider
from tests.support import adapters
from tests.support.clock import Skipping
from tests.support.fake_cog import (
    PNG,
    FakeCog,
    Play,
    after,
    answer,
    cut,
    cut_within,
    data_uri,
    hold,
    served,
    succeeded,
    until,
)
from tests.support.ports import dead_port

UPSTREAM = Upstream(model="tile-diffusion", options={"inputs": ["image"]})


def soon(seconds: float = 60) -> float:
    return asyncio.get_running_loop().time() + seconds


def job(name: str = "job-1", **payload: Value) -> UpstreamJob:
    return UpstreamJob(id=name, upstream=UPSTREAM, payload=payload, deadline=soon())


def picture(data: bytes) -> Image:
    return Image(data=data, header=Header(format="png", width=1, height=1))


async def ready(provider: LocalProvider) -> LocalProvider:
    await provider.start()
    await until(lambda: provider.readiness(UPSTREAM)[0] is Readiness.READY)
    return provider


class Unwatched(Skipping):
    """On this clock pauses take no time, but the minute after which a worker is looked at again never ends."""

    @override
    async def sleep(self, seconds: float) -> None:
        await (super().sleep(seconds) if seconds < 60 else asyncio.Event().wait())


@pytest.fixture
def clock() -> Unwatched:
    return Unwatched()


@pytest.fixture
async def local(client: httpx.AsyncClient, cog: FakeCog, clock: Unwatched) -> AsyncIterator[LocalProvider]:
    """The adapter before one scripted worker."""
    provider = await ready(
        adapters.local_provider(client, workers=[cog.url], cancel_timeout_s=0.3, health_interval_s=60, clock=clock)
    )
    yield provider
    await provider.aclose()


async def run(provider: LocalProvider, name: str = "job-1", **payload: Value) -> Outcome:
    wanted = UpstreamJob(id=name, upstream=UPSTREAM, payload=payload, deadline=soon())
    handle = await provider.submit(wanted)
    return await provider.wait(handle, soon())


async def test_a_job_is_one_put_under_our_id_and_its_answer_is_the_picture(local: LocalProvider, cog: FakeCog) -> None:
    """The exact request goes out, the picture comes back as it was, and the time is the worker's own."""
    outcome = await run(local, "job-1", image=picture(PNG), prompt="größer", seed=7)
    assert outcome == Outcome(images=(PNG,), seconds=1.5, cost=None)
    assert cog.jobs == ["job-1"]
    assert cog.bodies == [{"input": {"image": data_uri(PNG), "prompt": "größer", "seed": 7}}]
    assert "prefer" not in cog.headers[0]
    assert cog.headers[0]["content-type"] == "application/json"
    assert cog.cancelled == []


async def test_a_handle_says_where_the_job_is(local: LocalProvider, cog: FakeCog) -> None:
    """What is stored in the ledger is enough to cancel the job from another process."""
    handle = await local.submit(job("a"))
    assert handle == Handle(provider="local", id="a", data={"worker": cog.url}, held=True)


async def test_a_list_of_pictures_keeps_its_order(local: LocalProvider, cog: FakeCog) -> None:
    """A predictor that gives several gives all of them."""
    cog.play = lambda *_: async_(succeeded([data_uri(PNG), data_uri(b"two"), f"{cog.url}/files/a.png"]))
    assert (await run(local)).images == (PNG, b"two", PNG)


async def async_(response: Response) -> Response:
    return response


async def test_a_huge_picture_goes_there_and_back(local: LocalProvider) -> None:
    """20 MB in and 20 MB out are a matter of course."""
    data = os.urandom(20_000_000)
    assert (await run(local, image=picture(data))).images == (data,)


@pytest.mark.parametrize(
    ("play", "kind", "message"),
    [
        (answer(200, {"status": "failed", "error": "CUDA out of memory"}), Failed, "CUDA out of memory"),
        (answer(200, {"status": "failed"}), Failed, "the job failed"),
        (answer(200, {"status": "canceled"}), Failed, "the worker cancelled the job"),
        (
            answer(422, {"detail": [{"loc": ["body", "input", "seed"], "msg": "not a number"}]}),
            Rejected,
            "input.seed: not a number",
        ),
        (answer(400, b"bad"), Rejected, "HTTP 400"),
        (answer(413, b"length limit exceeded"), Rejected, "HTTP 413"),
        (answer(415, b""), Rejected, "HTTP 415"),
        (answer(404, b""), Failed, "HTTP 404"),
        (answer(500, {"error": "broken"}), Failed, "broken"),
        (answer(200, b"{"), Undecodable, "not JSON"),
        (answer(200, {"status": "processing"}), Undecodable, "no status"),
        (answer(200, []), Undecodable, "no status"),
        (answer(200, {"status": "succeeded"}), Undecodable, "neither"),
        (answer(200, {"status": "succeeded", "output": []}), Undecodable, "without a picture"),
        (answer(200, {"status": "succeeded", "output": ["data:image/png;base64,"]}), Undecodable, "without a picture"),
        (answer(200, {"status": "succeeded", "output": "data:image/png;base64,???"}), Undecodable, "neither"),
        (answer(200, {"status": "succeeded", "output": {"image": data_uri(PNG)}}), Undecodable, "neither"),
        (answer(200, {"status": "succeeded", "output": "http://127.0.0.1:1/a.png"}), Undecodable, "neither"),
        (answer(200, {"status": "succeeded", "output": "file:///etc/passwd"}), Undecodable, "neither"),
    ],
)
async def test_an_answer_that_is_no_picture_is_the_right_error(
    local: LocalProvider, cog: FakeCog, play: Play, kind: type[ProviderError], message: str
) -> None:
    """The status code alone says nothing; each answer is told by what it holds, and the job is sent once."""
    cog.play = play
    with pytest.raises(kind, match=message) as raised:
        await run(local)
    assert type(raised.value) is kind
    assert raised.value.message.startswith("local: ") or kind is Undecodable
    assert cog.jobs == ["job-1"]
    assert local.in_flight == 0


async def test_an_answer_above_the_cap_is_not_read(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A worker cannot fill the gateway's memory."""
    local = await ready(adapters.local_provider(client, workers=[cog.url], max_output_bytes=1000))
    with pytest.raises(Undecodable, match="larger than 1000 bytes"):
        await run(local, image=picture(bytes(2000)))
    await local.aclose()


async def test_pictures_above_the_limit_are_not_sent(local: LocalProvider, cog: FakeCog) -> None:
    """A container refuses more than 100 MiB; so it is not bothered."""
    with pytest.raises(Rejected, match="more than"):
        await local.submit(job(image=picture(bytes(80 * 1024 * 1024))))
    assert cog.jobs == []


@pytest.mark.parametrize(
    "busy",
    [
        answer(409, {"error": "At capacity - all prediction slots busy", "status": "failed"}),
        answer(409, {"detail": "Already running a prediction"}),
        answer(503, {"error": "setup not finished"}),
    ],
    ids=["new", "old", "setup"],
)
async def test_a_worker_without_a_place_is_asked_again_later(local: LocalProvider, cog: FakeCog, busy: Play) -> None:
    """No place is not a failure: the job waits and is sent again under its own id."""
    cog.plays = [busy, busy]
    assert (await run(local)).images == (PNG,)
    assert cog.jobs == ["job-1"] * 3
    assert cog.cancelled == []


async def test_a_worker_that_never_has_a_place_throttles(local: LocalProvider, cog: FakeCog, clock: Unwatched) -> None:
    """At the job's deadline the route is given up as busy, not as broken."""
    cog.play = answer(409, {})
    handle = await local.submit(replace(job(), deadline=clock.after(60)))
    with pytest.raises(Throttled) as raised:
        await local.wait(handle, soon())
    assert raised.value.retry_after is not None
    assert len(cog.jobs) > 10
    assert local.in_flight == local.queue_depth == 0


@pytest.mark.parametrize("broken", [cut, cut_within, answer(202, {"status": "processing"}), answer(502, b"")])
async def test_a_lost_answer_is_cancelled_and_run_once_more(local: LocalProvider, cog: FakeCog, broken: Play) -> None:
    """Nothing is billed here, so the adapter settles an unknown outcome itself: cancel, then a new id."""
    cog.plays = [broken]
    assert (await run(local)).images == (PNG,)
    assert cog.jobs == ["job-1", "job-1-again"]
    assert cog.cancelled == ["job-1"]


async def test_a_lost_answer_is_not_run_for_ever(local: LocalProvider, cog: FakeCog) -> None:
    """A job that kills its worker must not kill all of them: the second loss is a failure."""
    cog.play = cut
    with pytest.raises(Failed, match="run again"):
        await run(local)
    assert cog.jobs == cog.cancelled == ["job-1", "job-1-again"]


async def test_a_worker_that_died_after_its_health_check_passes_the_job_on(client: httpx.AsyncClient) -> None:
    """A request that never left goes to another worker, and says Unreached when there is none."""
    async with served(FakeCog()) as alive:
        async with served(FakeCog()) as dying:
            local = await ready(adapters.local_provider(client, workers=[dying.url], health_interval_s=30))
            both = adapters.local_provider(client, workers=[dying.url, alive.url], health_interval_s=30)
            await both.start()
            await until(lambda: all(worker.live for worker in both.describe()))
        with pytest.raises(Unreached):
            await run(local)
        assert (await run(both)).images == (PNG,)
        assert [worker.status for worker in both.describe()] == ["UNREACHABLE", "READY"]
        await local.aclose()
        await both.aclose()


async def test_the_deadline_ends_the_job_at_its_worker(local: LocalProvider, cog: FakeCog, clock: Unwatched) -> None:
    """Who stops waiting stops the GPU, and the slot is free again."""
    cog.play = hold
    handle = await local.submit(job())
    await until(lambda: cog.at_work)
    with pytest.raises(Expired, match="deadline"):
        await local.wait(handle, clock.after(0.05))
    assert cog.cancelled == ["job-1"]
    assert local.in_flight == cog.at_work == 0


async def test_a_job_that_ends_while_it_is_cancelled_is_a_result(
    local: LocalProvider, cog: FakeCog, clock: Unwatched
) -> None:
    """A picture that came after all is not thrown away."""

    async def finish(cog: FakeCog, name: str, given: dict[str, object]) -> Response:
        await cog.cancels(name).wait()
        return succeeded(data_uri(PNG))

    cog.play = finish
    handle = await local.submit(job())
    await until(lambda: cog.at_work)
    assert (await local.wait(handle, clock.after(0.05))).images == (PNG,)


async def test_a_worker_that_does_not_know_cancel_is_hung_up_on(
    local: LocalProvider, cog: FakeCog, clock: Unwatched
) -> None:
    """Old servers cannot cancel a sync job; the adapter does not wait for them."""
    cog.play = after(30)
    handle = await local.submit(job())
    await until(lambda: cog.at_work)
    began = soon(0)
    with pytest.raises(Expired):
        await local.wait(handle, clock.after(0.05))
    assert soon(0) - began < 0.3
    assert cog.cancelled == ["job-1"]
    assert local.in_flight == 0


async def test_a_worker_that_ignores_its_cancel_is_hung_up_on(
    local: LocalProvider, cog: FakeCog, clock: Unwatched
) -> None:
    """A worker that says yes and goes on is given the cancel timeout and no more."""

    async def deaf(cog: FakeCog, name: str, given: dict[str, object]) -> Response:
        cog.cancels(name)
        await asyncio.sleep(30)
        return succeeded(data_uri(PNG))

    cog.play = deaf
    handle = await local.submit(job())
    await until(lambda: cog.at_work)
    with pytest.raises(Expired):
        await local.wait(handle, clock.after(0.05))
    assert local.in_flight == 0


async def test_cancel_stops_the_job_and_is_harmless_after_it(local: LocalProvider, cog: FakeCog) -> None:
    """A cancel is seen through, whoever waits hears of it, and a second one does nothing."""
    cog.play = hold
    handle = await local.submit(job())
    waiter = asyncio.create_task(local.wait(handle, soon()))
    await until(lambda: cog.at_work)
    await local.cancel(handle)
    assert cog.cancelled == ["job-1"]
    assert local.in_flight == 0
    with pytest.raises(Expired, match="cancelled"):
        await waiter
    await local.cancel(handle)


async def test_a_job_outlives_its_waiter(local: LocalProvider, cog: FakeCog) -> None:
    """A caller that leaves does not end the job: another one may wait for it."""
    cog.play = after(0.2)
    handle = await local.submit(job())
    waiter = asyncio.create_task(local.wait(handle, soon()))
    await until(lambda: cog.at_work)
    waiter.cancel()
    await asyncio.wait({waiter})
    assert (await local.wait(handle, soon())).images == (PNG,)
    assert cog.cancelled == []


async def test_the_same_job_is_not_run_twice(local: LocalProvider, cog: FakeCog) -> None:
    """A submit that is repeated while its job runs joins it."""
    cog.play = after(0.1)
    first, second = await local.submit(job()), await local.submit(job())
    assert first == second
    await local.wait(first, soon())
    assert cog.jobs == ["job-1"]


async def test_a_job_of_an_earlier_life_is_cancelled_and_failed(local: LocalProvider, cog: FakeCog) -> None:
    """After a restart the answer is lost with its connection; the GPU is stopped, also if it was run again."""
    with pytest.raises(Failed, match="result is lost"):
        await local.wait(Handle(provider="local", id="old", data={"worker": cog.url}), soon())
    assert sorted(cog.cancelled) == ["old", "old-again"]


async def test_a_stored_handle_leads_only_to_a_configured_worker(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """An address in the ledger is not an instruction to call it."""
    local = adapters.local_provider(client, workers=[f"http://127.0.0.1:{dead_port()}"])
    await local.cancel(Handle(provider="local", id="old", data={"worker": cog.url}))
    assert cog.cancelled == []


async def test_closing_ends_everything_and_leaves_nothing(cog: FakeCog) -> None:
    """Running and waiting jobs end, the worker is told, and no task or connection is left."""
    before = asyncio.all_tasks()
    async with http.client() as made:
        local = await ready(adapters.local_provider(made, workers=[cog.url], cancel_timeout_s=0.3))
        cog.play = hold
        handle = await local.submit(job("runs"))
        await until(lambda: cog.at_work)
        queued = asyncio.create_task(local.submit(job("waits")))
        await until(lambda: local.queue_depth == 1)
        await local.aclose()
        with pytest.raises(Unreached, match="shutting down"):
            await queued
        with pytest.raises(Failed):
            await local.wait(handle, soon())
        with pytest.raises(Unreached, match="shutting down"):
            await local.submit(job("late"))
        assert (local.queue_depth, local.in_flight, cog.at_work) == (0, 0, 0)
    await until(lambda: cog.connections == 0)
    await until(lambda: asyncio.all_tasks() <= before)
    assert cog.cancelled[0] == "runs"
    assert cog.jobs == ["runs"]
