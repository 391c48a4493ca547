"""Many cards behind Cog's routes: jobs side by side, lost replicas, cancels, no more than there is room for."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from PIL import Image

from tests.cluster.conftest import Cluster
from tests.support.paths import COFFEE
from tests.support.running import Serve
from tests.support.workers import data_uri, from_data_uri, play, receiver, until

pytestmark = pytest.mark.timeout(300)


def job(scale: float, size: int = 600) -> dict[str, Any]:
    """A photograph of so many pixels a side, to be enlarged: at 8 and 600 it takes seconds."""
    with Image.open(COFFEE) as photo:
        buffer = io.BytesIO()
        photo.convert("RGB").resize((size, size)).save(buffer, "PNG")
    return {"input": {"image": data_uri(buffer.getvalue()), "scale": scale}}


def client(cluster: Cluster) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=cluster.url, timeout=120)


async def health(http: httpx.AsyncClient) -> Any:
    return (await http.get("/health-check")).json()


async def idle(http: httpx.AsyncClient) -> bool:
    return bool((await health(http))["concurrency"]["current"] == 0)


async def test_its_routes(cluster: Cluster) -> None:
    """To a gateway it is a worker like any other, with a slot for each card; but nobody can shut it down."""
    async with client(cluster) as http:
        said = await health(http)
        assert (said["status"], said["concurrency"]) == ("READY", {"max": 2, "current": 0})
        document = (await http.get("/openapi.json")).json()
        assert document["info"]["title"] == "lanczos-bp"
        assert "scale" in document["components"]["schemas"]["Input"]["properties"]
        assert (await http.post("/shutdown")).status_code == 404
        refused = await http.post("/predictions", json=job(40))
        assert refused.status_code == 422
        assert "greater than the maximum of 16" in refused.text
        large = await http.post("/predictions", json=job(16))
        assert large.status_code == 422
        assert "9600 x 9600 pixels are more than the 64000000" in large.json()["detail"][0]["msg"]
        broken = await http.post("/predictions", json={"input": {"image": data_uri(b"nothing")}})
        assert (broken.status_code, broken.json()["status"]) == (200, "failed")
        assert "cannot be read" in broken.json()["error"]


async def test_side_by_side(cluster: Cluster) -> None:
    """Two jobs run on two replicas; a third is refused, for the gateway to keep."""
    async with client(cluster) as http:
        await until(lambda: idle(http), 30)
        before = cluster.replicas()
        assert len(before) == 2
        both = [asyncio.create_task(http.post("/predictions", json=job(8))) for _ in range(2)]

        async def full() -> bool:
            return bool((await health(http))["status"] == "BUSY")

        await until(full, 30)
        assert (await http.post("/predictions", json=job(1))).status_code == 409
        answers = [await one for one in both]

    after = cluster.replicas()
    for answer in answers:
        assert answer.json()["status"] == "succeeded"
        assert Image.open(io.BytesIO(from_data_uri(answer.json()["output"]))).size == (4800, 4800)
    spent = sorted(after[pid] - before[pid] for pid in before)
    # Each took its part of the work.
    assert spent[0] > 0.3 * spent[1]


async def test_a_replica_is_killed(cluster: Cluster) -> None:
    """Its job is run again elsewhere and answered, the log says so, and a new replica comes."""
    async with client(cluster) as http:
        await until(lambda: idle(http), 30)
        before = cluster.replicas()
        both = [asyncio.create_task(http.post("/predictions", json=job(8))) for _ in range(2)]

        def working() -> bool:
            now = cluster.replicas()
            return len(now) == 2 and all(now[pid] - before.get(pid, 0) > 1 for pid in now)

        await until(working, 60)
        victim = min(cluster.replicas())
        os.kill(victim, signal.SIGKILL)
        answers = [(await one).json() for one in both]

        assert [answer["status"] for answer in answers] == ["succeeded", "succeeded"]
        assert sum("run again on another" in answer["logs"] for answer in answers) == 1
        await until(lambda: len(cluster.replicas()) == 2 and victim not in cluster.replicas(), 90)
        assert (await http.post("/predictions", json=job(1))).json()["status"] == "succeeded"


async def test_cancelled(cluster: Cluster) -> None:
    """A cancel reaches the replica that has the job, and frees it; so does a caller that hangs up."""
    async with receiver() as (hook, events), client(cluster) as http:
        await until(lambda: idle(http), 30)
        body = job(12) | {"webhook": hook, "webhook_events_filter": ["completed"]}
        sent = await http.put("/predictions/long", json=body, headers={"Prefer": "respond-async"})
        assert sent.status_code == 202
        before = cluster.replicas()

        def begun() -> bool:
            now = cluster.replicas()
            return any(now[pid] - before.get(pid, 0) > 0.5 for pid in now)

        await until(begun, 60)
        assert (await http.post("/predictions/long/cancel")).status_code == 200
        await until(lambda: bool(events), 30)
        assert events[-1]["status"] == "canceled"
        await until(lambda: idle(http), 30)

        async def quiet() -> bool:
            one = sum(cluster.replicas().values())
            await asyncio.sleep(1)
            return sum(cluster.replicas().values()) - one < 0.3

        # It would have gone on for longer.
        await until(quiet, 5)

        with pytest.raises(httpx.ReadTimeout):
            await http.post("/predictions", json=job(12), timeout=1.5)
        await until(lambda: idle(http), 30)
        # Both replicas are free again.
        quick = [http.post("/predictions", json=job(1)) for _ in range(2)]
        assert {answer.status_code for answer in await asyncio.gather(*quick)} == {200}


async def test_a_new_version_while_a_job_runs(cluster: Cluster) -> None:
    """The old replicas finish what they have and are answered for; the next job is the new ones'."""
    async with client(cluster) as http:
        await until(lambda: idle(http), 30)
        before = cluster.replicas()
        running = asyncio.create_task(http.post("/predictions", json=job(8)))

        def begun() -> bool:
            now = cluster.replicas()
            return any(now[pid] - before.get(pid, 0) > 0.5 for pid in now)

        await until(begun, 60)
        await asyncio.to_thread(cluster.change, max_output_pixels=1_000_000)
        answer = (await running).json()
        assert answer["status"] == "succeeded", answer
        assert "again" not in answer["logs"]

        async def renewed() -> bool:
            told = await http.post("/predictions", json=job(8))
            return "more than the 1000000" in told.text

        await until(renewed, 90)
        await until(lambda: not before.keys() & cluster.replicas().keys(), 90)
        await asyncio.to_thread(cluster.change, max_output_pixels=64_000_000)

        async def back() -> bool:
            told = await http.post("/predictions", json=job(2))
            return told.status_code == 200 and told.json()["status"] == "succeeded"

        await until(back, 90)


async def test_a_card_has_a_fault(cluster: Cluster) -> None:
    """Its replica is replaced, and the gate goes on: one card's fault is not everybody's."""
    async with client(cluster) as http:
        answer = (await http.post("/play/predictions", json=play("break"))).json()
        assert answer["status"] == "failed"
        assert answer["error"] == "the job's replica was lost 3 times: asked to break"
        assert answer["logs"].count("the replica was lost (asked to break)") == 2
        assert (await http.get("/play/health-check")).json()["status"] == "READY"
        after = (await http.post("/play/predictions", json=play("hello"))).json()

    assert after["status"] == "succeeded"
    replaced = cluster.log.read_text()
    assert "asked to break" in replaced


async def test_more_and_fewer(cluster: Cluster) -> None:
    """A replica is started as jobs wait, and ended when there are none; every job is answered."""
    always = {"min_replicas": 2, "max_replicas": 2}
    await asyncio.to_thread(cluster.change, min_replicas=1, max_replicas=2, upscale_delay_s=0.5, downscale_delay_s=2)
    async with client(cluster) as http:
        await until(lambda: len(cluster.replicas()) == 1, 90)
        await until(lambda: idle(http), 30)
        both = [asyncio.create_task(http.post("/predictions", json=job(10))) for _ in range(2)]
        await until(lambda: len(cluster.replicas()) == 2, 60)
        answers = [(await one).json() for one in both]
        assert [answer["status"] for answer in answers] == ["succeeded", "succeeded"]
        await until(lambda: len(cluster.replicas()) == 1, 60)
        await asyncio.to_thread(cluster.change, **always)
        await until(lambda: len(cluster.replicas()) == 2, 90)


async def test_before_it_a_gateway(cluster: Cluster, serve: Serve) -> None:
    """The gateway needs to know nothing of it: five calls at once share the two replicas."""
    gateway = await asyncio.to_thread(serve, DARKROOM_PROVIDERS__LOCAL__WORKERS=json.dumps([cluster.url]))
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0, timeout=120) as sdk:
        calls = [
            sdk.images.edit(model="lanczos-bp", image=COFFEE, prompt="x", response_format="b64_json") for _ in range(5)
        ]
        answers = await asyncio.gather(*calls)

    for answer in answers:
        assert answer.data
        assert Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or ""))).size == (1200, 800)
        assert answer.model_extra is not None
        assert answer.model_extra["metadata"]["executed_model"] == "lanczos-bp"
