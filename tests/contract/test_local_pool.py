"""The queue before the Cog workers, and what the workers say of themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from providers.base import Readiness, Upstream, UpstreamJob
from providers.clock import CLOCK
from providers.errors import Throttled, Unreached
from providers.local.adapter import LocalProvider
from providers.local.pool import WorkerPool
from providers.local.workers import WorkerState
from tests.support import adapters
from tests.support.fake_cog import (
    PNG,
    FakeCog,
    after,
    answer,
    data_uri,
    hold,
    served,
    succeeded,
    until,
)
from tests.support.ports import dead_port

UPSTREAM = Upstream(model="tile-diffusion")


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


def job(name: str, seconds: float = 5, model: str = "tile-diffusion") -> UpstreamJob:
    return UpstreamJob(id=name, upstream=Upstream(model=model), payload={}, deadline=soon(seconds))


def a_pool(client: httpx.AsyncClient) -> WorkerPool:
    """The queue before one worker that nobody looks after."""
    return WorkerPool(
        client,
        ["http://a"],
        max_queue=9,
        health_interval_s=9,
        health_timeout_s=9,
        start_deadline_s=9,
        clock=CLOCK,
    )


def how(provider: LocalProvider, upstream: Upstream = UPSTREAM) -> Readiness:
    return provider.readiness(upstream)[0]


async def run(provider: LocalProvider, name: str) -> None:
    assert (await provider.wait(await provider.submit(job(name)), soon())).images == (PNG,)


async def test_no_worker_is_off(client: httpx.AsyncClient) -> None:
    """Without a worker there is no local route, and a submit has nowhere to go."""
    local = adapters.local_provider(client, workers=[])
    await local.start()
    assert local.readiness(UPSTREAM) == (Readiness.OFF, "no worker is configured")
    with pytest.raises(Unreached):
        await local.submit(job("a"))
    await local.aclose()


async def test_a_dead_port_is_down(client: httpx.AsyncClient) -> None:
    """A worker that refuses connections is named, and no job waits for it."""
    url = f"http://127.0.0.1:{dead_port()}"
    local = adapters.local_provider(client, workers=[url])
    await local.start()
    await until(lambda: local.describe()[0].status == "UNREACHABLE")
    assert local.readiness(UPSTREAM) == (
        Readiness.DOWN,
        "no worker can take this model now: worker 1 is UNREACHABLE",
    )
    with pytest.raises(Unreached):
        await local.submit(job("a"))
    await local.aclose()


@pytest.mark.parametrize(
    ("health", "code", "readiness"),
    [
        ({"status": "READY"}, 200, Readiness.READY),
        ({"status": "BUSY"}, 200, Readiness.READY),
        ({"status": "BUSY"}, 503, Readiness.READY),
        ({"status": "STARTING"}, 200, Readiness.DOWN),
        ({"status": "STARTING"}, 503, Readiness.DOWN),
        ({"status": "SETUP_FAILED"}, 200, Readiness.DOWN),
        ({"status": "DEFUNCT"}, 200, Readiness.DOWN),
        ({"status": "UNHEALTHY"}, 503, Readiness.DOWN),
        ({"status": "a new word"}, 200, Readiness.DOWN),
        ({"hello": "world"}, 200, Readiness.DOWN),
    ],
)
async def test_health_is_read_from_the_body(
    client: httpx.AsyncClient, cog: FakeCog, health: dict[str, Any], code: int, readiness: Readiness
) -> None:
    """Both generations are understood: the status code says nothing, the word everything."""
    cog.health, cog.health_code = health, code
    local = adapters.local_provider(client, workers=[cog.url], health_interval_s=0.05)
    await local.start()
    await until(lambda: cog.looks > 1)
    assert how(local) is readiness
    await local.aclose()


async def test_a_worker_is_seen_at_once_when_it_becomes_ready(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Startup is polled quickly, so that the first request does not wait for a health interval."""
    cog.health = {"status": "STARTING"}
    local = adapters.local_provider(client, workers=[cog.url], health_interval_s=60)
    await local.start()
    await until(lambda: local.describe()[0].status == "STARTING")
    waiting = asyncio.create_task(local.submit(job("early")))
    await until(lambda: local.queue_depth == 1)
    cog.health = {"status": "READY"}
    await asyncio.wait_for(waiting, 1)
    await local.aclose()


async def test_a_worker_that_starts_for_ever_is_out(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A worker whose inner process died says STARTING for good: who waits for it is sent away."""
    cog.health = {"status": "STARTING"}
    local = adapters.local_provider(client, workers=[cog.url], start_deadline_s=0.3, health_interval_s=0.05)
    await local.start()
    await until(lambda: local.describe()[0].status == "STARTING")
    with pytest.raises(Unreached):
        await local.submit(job("a"))
    assert "STARTING, for too long" in local.readiness(UPSTREAM)[1]
    cog.health = {"status": "READY"}
    await until(lambda: how(local) is Readiness.READY)
    await local.aclose()


async def test_a_worker_that_goes_out_sends_away_who_waits(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Other routes are tried when the last worker is gone, and not only at the deadline."""
    local = adapters.local_provider(client, workers=[cog.url], health_interval_s=0.05)
    await local.start()
    await until(lambda: how(local) is Readiness.READY)
    cog.play = hold
    await local.submit(job("runs"))
    waiting = asyncio.create_task(local.submit(job("waits", seconds=60)))
    await until(lambda: local.queue_depth == 1)
    cog.health = {"status": "DEFUNCT"}
    with pytest.raises(Unreached):
        await asyncio.wait_for(waiting, 2)
    await local.aclose()


async def test_a_worker_is_asked_who_it_is_after_it_was_out(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """What comes back on the same address may be another engine."""
    local = adapters.local_provider(client, workers=[cog.url], health_interval_s=0.02)
    await local.start()
    await until(lambda: local.engines() == ("tile-diffusion",))
    cog.health = {"status": "UNHEALTHY"}
    await until(lambda: how(local) is Readiness.DOWN)
    assert local.engines() == ()
    cog.schema = {"info": {"title": "resample"}}
    cog.health = {"status": "READY"}
    await until(lambda: local.engines() == ("resample",))
    assert how(local) is Readiness.OFF
    await local.aclose()


@pytest.mark.parametrize(
    ("upstream", "readiness", "words"),
    [
        (Upstream(model="tile-diffusion"), Readiness.READY, ""),
        (Upstream(model=""), Readiness.READY, ""),
        (Upstream(model="", options={"inputs": ["prompt", "image"]}), Readiness.READY, ""),
        (Upstream(model="clarity"), Readiness.OFF, "no worker has clarity; there is tile-diffusion"),
        (
            Upstream(model="", options={"inputs": ["image", "mask"]}),
            Readiness.OFF,
            "no worker has any model with the inputs image, mask; there is tile-diffusion",
        ),
    ],
)
async def test_a_worker_serves_what_it_announces(
    client: httpx.AsyncClient, cog: FakeCog, upstream: Upstream, readiness: Readiness, words: str
) -> None:
    """Engine and inputs are matched against the worker's own schema."""
    local = adapters.local_provider(client, workers=[f"{cog.url}/"])
    await local.start()
    await until(lambda: local.engines())
    assert local.readiness(upstream) == (readiness, words)
    await local.aclose()


async def test_a_worker_without_a_schema_serves_any_model_by_no_name(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A container that was built without one answers 503 there, and works."""
    cog.schema = None
    local = adapters.local_provider(client, workers=[cog.url])
    await local.start()
    await until(lambda: how(local, Upstream(model="")) is Readiness.READY)
    assert how(local) is Readiness.OFF
    assert local.describe() == (WorkerState(url=cog.url, status="READY", live=True, engine="", slots=1, running=0),)
    await local.aclose()


async def test_a_model_on_a_worker_that_is_away_is_down_and_not_off(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Another worker that is up and has other models does not make this one unconfigured."""
    other = FakeCog(schema={"info": {"title": "resample"}})
    async with served(other):
        local = adapters.local_provider(client, workers=[cog.url, other.url], health_interval_s=0.05)
        await local.start()
        await until(lambda: local.engines() == ("resample", "tile-diffusion"))
        cog.health = {"status": "SETUP_FAILED"}
        await until(lambda: local.engines() == ("resample",))
        assert how(local) is Readiness.DOWN
        assert how(local, Upstream(model="clarity")) is Readiness.OFF
        await local.aclose()


async def test_jobs_are_served_in_their_order_one_at_a_time(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A worker with one slot gets one job at a time, first come, first served."""
    cog.play = after(0.02)
    local = adapters.local_provider(client, workers=[cog.url])
    await local.start()
    names = [f"job-{number}" for number in range(8)]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(run(local, name))
    assert cog.jobs == names
    assert cog.most_at_work == 1
    await local.aclose()


async def test_two_workers_share_the_queue(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Two workers halve the time, and each has one job at a time."""
    async with served(FakeCog()) as other:
        cog.play = other.play = after(0.05)
        local = adapters.local_provider(client, workers=[cog.url, other.url])
        await local.start()
        await until(lambda: all(worker.live for worker in local.describe()))
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(run(local, f"job-{number}"))
        assert len(cog.jobs) == len(other.jobs) == 4
        assert cog.most_at_work == other.most_at_work == 1
        await local.aclose()


async def test_slots_are_as_many_as_the_worker_says(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A worker that takes three jobs at once gets three."""
    cog.health = {"status": "READY", "concurrency": {"max": 3, "current": 0}}
    cog.play = after(0.1)
    local = adapters.local_provider(client, workers=[cog.url])
    await local.start()
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(run(local, f"job-{number}"))
    assert cog.most_at_work == 3
    await local.aclose()


async def test_a_job_without_a_place_goes_back_to_the_head(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Who was first stays first when the worker turns out to be taken."""
    cog.plays = [answer(409, {"detail": "Already running a prediction"})]
    local = adapters.local_provider(client, workers=[cog.url])
    await local.start()
    async with asyncio.TaskGroup() as group:
        for name in ("first", "second", "third"):
            group.create_task(run(local, name))
    assert cog.jobs == ["first", "first", "second", "third"]
    await local.aclose()


async def test_a_job_without_a_place_tries_another_worker(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Somebody else's job on one worker does not hold up ours while another is free."""
    cog.play = answer(409, {})
    async with served(FakeCog()) as other:
        local = adapters.local_provider(client, workers=[cog.url, other.url])
        await local.start()
        await until(lambda: all(worker.live for worker in local.describe()))
        for number in range(3):
            await run(local, f"job-{number}")
        assert len(other.jobs) == 3
        await local.aclose()


async def test_the_queue_has_an_end(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """One more than the bound is sent away at once, with a time that grows with the queue."""
    cog.play = hold
    local = adapters.local_provider(client, workers=[cog.url], max_queue=2)
    await local.start()
    await local.submit(job("runs"))
    queued = [asyncio.create_task(local.submit(job(f"waits-{number}"))) for number in range(2)]
    await until(lambda: local.queue_depth == 2)
    with pytest.raises(Throttled, match="full") as raised:
        await local.submit(job("too-many"))
    assert raised.value.retry_after == 40.0
    assert local.queue_depth == 2
    assert local.in_flight == 1
    for task in queued:
        task.cancel()
    await asyncio.wait(queued)
    assert local.queue_depth == 0
    await local.aclose()


async def test_a_job_that_finds_no_worker_before_its_deadline_is_throttled(
    client: httpx.AsyncClient, cog: FakeCog
) -> None:
    """A full house is no fault of the workers, and the job leaves the queue."""
    cog.play = hold
    local = adapters.local_provider(client, workers=[cog.url])
    await local.start()
    await local.submit(job("runs"))
    with pytest.raises(Throttled, match="in time"):
        await local.submit(job("waits", seconds=0.1))
    assert local.queue_depth == 0
    assert cog.jobs == ["runs"]
    await local.aclose()


@pytest.mark.parametrize("given", [True, False], ids=["after its turn came", "before its turn came"])
async def test_who_leaves_in_the_moment_of_its_turn_loses_no_slot(client: httpx.AsyncClient, given: bool) -> None:
    """A cancelled submit and a slot that becomes free may meet in one step of the event loop, in either order."""
    pool = a_pool(client)
    (worker,) = pool.workers
    worker.status, worker.known, worker.engine = "READY", True, "tile-diffusion"
    assert await pool.enter(pool.turn(UPSTREAM, soon())) is worker
    leaves = asyncio.create_task(pool.enter(pool.turn(UPSTREAM, soon())))
    stays = asyncio.create_task(pool.enter(pool.turn(UPSTREAM, soon())))
    await until(lambda: pool.waiting == 2)
    for step in (lambda: pool.release(worker), leaves.cancel)[:: 1 if given else -1]:
        step()
    assert await asyncio.wait_for(stays, 1) is worker
    assert leaves.cancelled()
    pool.release(worker)
    assert (pool.running, pool.waiting) == (0, 0)


async def test_a_worker_that_is_taken_is_asked_less_and_less(client: httpx.AsyncClient) -> None:
    """Each try sends the pictures again, so the pauses grow, and start anew once a job ran."""
    pool = a_pool(client)
    (worker,) = pool.workers
    pauses = []
    for number in range(10):
        pool.refused(worker)
        pauses.append(round(worker.paused_until - soon(0), 2))
        if number == 8:
            pool.release(worker, ran_s=1)
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 0.05]
    await pool.aclose()


async def test_a_job_that_comes_back_is_let_in_whatever_the_bound(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """The bound is for new jobs; one that was let in once is not thrown out for coming back."""
    cog.plays = [answer(409, {})]
    local = adapters.local_provider(client, workers=[cog.url], max_queue=0)
    await local.start()
    await until(lambda: local.engines())
    await run(local, "a")
    assert cog.jobs == ["a", "a"]
    await local.aclose()


async def test_the_emptiest_worker_is_given_the_next_job(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """Two jobs go to two workers, though one of them could take both."""
    async with served(FakeCog()) as other:
        cog.play = other.play = after(0.05)
        cog.health = other.health = {"status": "READY", "concurrency": {"max": 2}}
        local = adapters.local_provider(client, workers=[cog.url, other.url])
        await local.start()
        await until(lambda: all(worker.live for worker in local.describe()))
        async with asyncio.TaskGroup() as group:
            group.create_task(run(local, "a"))
            group.create_task(run(local, "b"))
        assert [cog.jobs, other.jobs] == [["a"], ["b"]]
        await local.aclose()


async def test_each_engine_has_its_own_order(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A job that waits for one engine does not hold up a job for another."""
    cog.play = hold
    other = FakeCog(schema={"info": {"title": "resample"}})
    async with served(other):
        local = adapters.local_provider(client, workers=[cog.url, other.url])
        await local.start()
        await until(lambda: len(local.engines()) == 2)
        await local.submit(job("a"))
        waiting = asyncio.create_task(local.submit(job("b")))
        await until(lambda: local.queue_depth == 1)
        handle = await local.submit(job("c", model="resample"))
        assert (await local.wait(handle, soon())).images == (PNG,)
        assert other.jobs == ["c"]
        waiting.cancel()
        await local.aclose()


async def test_a_slow_health_check_does_not_end_a_job(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A worker that is at work may answer late once or twice; it stays in, and its job runs on."""

    async def busy(cog: FakeCog, name: str, given: dict[str, Any]) -> Response:
        cog.health = {}
        await asyncio.sleep(0.15)
        cog.health = {"status": "READY"}
        return succeeded(data_uri(PNG))

    local = adapters.local_provider(client, workers=[cog.url], health_interval_s=0.1)
    await local.start()
    await until(lambda: how(local) is Readiness.READY)
    cog.play = busy
    await run(local, "a")
    assert how(local) is Readiness.READY
    await local.aclose()


def of(owner: str, name: str) -> UpstreamJob:
    return replace(job(name, seconds=60), owner=owner)


async def test_keys_take_turns(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A key's one job is behind one job of a key that has many, and not behind all of them."""
    cog.play = after(0.01)
    local = adapters.local_provider(client, workers=[cog.url])
    await local.start()
    async with asyncio.TaskGroup() as group:

        async def one(owner: str, name: str) -> None:
            await local.wait(await local.submit(of(owner, name)), soon(60))

        for number in range(8):
            group.create_task(one("a", f"a-{number}"))
        await until(lambda: local.queue_depth == 7)
        for number in range(2):
            group.create_task(one("b", f"b-{number}"))
    assert cog.jobs[:5] == ["a-0", "b-0", "a-1", "b-1", "a-2"]
    assert sorted(cog.jobs) == [*(f"a-{number}" for number in range(8)), "b-0", "b-1"]
    await local.aclose()


async def test_a_full_queue_has_room_for_another_key(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """One key may fill the queue, and another one comes in; what one is refused for says nothing of the next one."""
    cog.play = hold
    local = adapters.local_provider(client, workers=[cog.url], max_queue=8)
    await local.start()
    await local.submit(of("a", "runs"))
    queued = [asyncio.create_task(local.submit(of("a", f"waits-{number}"))) for number in range(8)]
    await until(lambda: local.queue_depth == 8)
    with pytest.raises(Throttled, match="is full") as mine:
        await local.submit(of("a", "one-too-many"))
    queued.append(asyncio.create_task(local.submit(of("b", "another"))))
    await until(lambda: local.queue_depth == 9)
    with pytest.raises(Throttled, match="is full") as other:
        await local.submit(of("b", "and-one-more"))
    assert (mine.value.retry_after, other.value.retry_after) == (100.0, 60.0)
    assert mine.value.health == other.value.health == "neutral"
    for task in queued[:2]:
        task.cancel()
    await until(lambda: local.queue_depth == 7)
    with pytest.raises(Throttled, match="keeps the rest for other keys"):
        await local.submit(of("a", "not-yet"))
    queued.append(asyncio.create_task(local.submit(of("b", "and-one-more"))))
    await until(lambda: local.queue_depth == 8)
    for task in queued:
        task.cancel()
    await asyncio.wait(queued)
    await local.aclose()
