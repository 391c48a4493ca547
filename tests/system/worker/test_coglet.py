"""The adapter against Cog's own server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from normalization.values import Header, Image, Value
from providers.base import Outcome, Readiness, Upstream, UpstreamJob
from providers.errors import Expired, Failed, Rejected
from providers.local.adapter import LocalProvider
from tests.support import adapters
from tests.support.fake_cog import PNG, data_uri, until
from tests.support.links import Told, letterbox
from tests.support.ports import free_port

UPSTREAM = Upstream(model="echo", options={"inputs": ["image", "seconds"]})

# It sleeps in small pieces because a cancel reaches Python code between two calls, and gives back a copy because the
# input is removed when the job ends.
PREDICTOR = """
import shutil, tempfile, time
from cog import BaseRunner, Input, Path


class Runner(BaseRunner):
    def run(self, image: Path, seconds: float = Input(default=0.0), fail: bool = Input(default=False)) -> Path:
        end = time.monotonic() + seconds
        for part in range(10 if seconds else 0):
            print(f"{10 * part:3d}%|{'#' * part:10}| {part}/10", flush=True)
            while time.monotonic() < end - seconds * (1 - part / 10):
                time.sleep(0.01)
        while time.monotonic() < end:
            time.sleep(0.01)
        if fail:
            raise ValueError("no such luck")
        return Path(shutil.copy(image, tempfile.mkdtemp(dir=".") + "/out.png"))
"""

SCHEMA = {
    "openapi": "3.0.2",
    "info": {"title": "echo", "version": "1"},
    "paths": {},
    "components": {
        "schemas": {
            "Input": {
                "type": "object",
                "title": "Input",
                "required": ["image"],
                "properties": {
                    "image": {"type": "string", "format": "uri", "title": "Image"},
                    "seconds": {"type": "number", "default": 0, "maximum": 60, "title": "Seconds"},
                    "fail": {"type": "boolean", "default": False, "title": "Fail"},
                },
            },
            "Output": {"type": "string", "format": "uri", "title": "Output"},
            "PredictionRequest": {
                "type": "object",
                "properties": {"webhook": {"type": "string"}, "webhook_events_filter": {"type": "array"}},
            },
        }
    },
}


@pytest.fixture(scope="module")
def coglet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Cog's server with a predictor that gives back its picture."""
    folder: Path = tmp_path_factory.mktemp("coglet")
    (folder / "predict.py").write_text(PREDICTOR)
    (folder / ".cog").mkdir()
    (folder / ".cog" / "openapi_schema.json").write_text(json.dumps(SCHEMA))
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "COG_PREDICT_TYPE_STUB": "predict.py:Runner"}
    # It starts a worker process as `python`, which has to be the one that has Cog.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
async def local(client: httpx.AsyncClient, coglet: str) -> LocalProvider:
    provider = adapters.local_provider(client, workers=[coglet])
    await provider.start()
    await until(lambda: provider.readiness(UPSTREAM)[0] is Readiness.READY, 60)
    return provider


def soon(seconds: float = 20) -> float:
    return asyncio.get_running_loop().time() + seconds


def job(name: str, **payload: Value) -> UpstreamJob:
    image = Image(data=PNG, header=Header(format="png", width=1, height=1))
    return UpstreamJob(id=name, upstream=UPSTREAM, payload={"image": image, **payload}, deadline=soon())


async def run(local: LocalProvider, wanted: UpstreamJob) -> Outcome:
    return await local.wait(await local.submit(wanted), soon())


async def test_it_runs_jobs_in_their_order(local: LocalProvider) -> None:
    """Pictures go in and come out as they were, one after another, with the worker's own time."""
    outcomes = await asyncio.gather(*(run(local, job(f"run-{number}", seconds=0.05)) for number in range(4)))
    assert [outcome.images for outcome in outcomes] == [(PNG,)] * 4
    assert all(outcome.seconds is not None and 0.05 <= outcome.seconds < 5 for outcome in outcomes)
    assert local.engines() == ("echo",)
    await local.aclose()


async def test_its_errors_are_told_apart(local: LocalProvider) -> None:
    """A failed predictor comes as 200, a bad input as 422."""
    with pytest.raises(Failed, match="no such luck"):
        await run(local, job("fails", fail=True))
    with pytest.raises(Rejected, match=r"HTTP 422: .*seconds"):
        await run(local, job("bad", seconds="many"))
    assert (await run(local, job("after"))).images == (PNG,)
    await local.aclose()


async def test_a_deadline_frees_it_at_once(local: LocalProvider) -> None:
    """A job that is given up leaves the GPU to the next one."""
    handle = await local.submit(job("long", seconds=30))
    with pytest.raises(Expired):
        await local.wait(handle, soon(0.5))
    began = soon(0)
    assert (await run(local, job("next"))).images == (PNG,)
    assert soon(0) - began < 5
    await local.aclose()


async def test_its_slot_is_shared_with_strangers(local: LocalProvider, client: httpx.AsyncClient, coglet: str) -> None:
    """Its 409 sends our job back to the queue until the other's job is done."""
    other = asyncio.create_task(
        client.put(f"{coglet}/predictions/other", json={"input": {"image": data_uri(PNG), "seconds": 1}})
    )
    await asyncio.sleep(0.3)
    assert (await run(local, job("mine"))).images == (PNG,)
    assert (await other).status_code == 200
    await local.aclose()


async def test_closing_the_gateway_frees_it(local: LocalProvider, client: httpx.AsyncClient, coglet: str) -> None:
    """A gateway that ends leaves no work behind for the next one to wait on."""
    await local.submit(job("orphan", seconds=30))
    await asyncio.sleep(0.3)
    await local.aclose()
    assert local.in_flight == 0
    began = soon(0)
    heir = adapters.local_provider(client, workers=[coglet])
    await heir.start()
    assert (await run(heir, job("heir"))).images == (PNG,)
    assert soon(0) - began < 5
    await heir.aclose()


async def test_its_webhooks_tell_how_far_it_is(local: LocalProvider) -> None:
    """Progress bars come by webhook and without a picture, the result comes by the connection."""
    with letterbox() as box:
        wanted = job("watched", seconds=1.5)
        outcome = await local.wait(await local.submit(wanted, Told(webhook=box.url)), soon())
        assert outcome.images == (PNG,)
        heard = [await local.parse_webhook(headers, body) for headers, body in box.got]
    assert {one.id for one in heard if one} == {"watched"}
    shares = [one.progress for one in heard if one and one.progress is not None]
    assert shares == sorted(shares)
    assert shares[-1] >= 0.3
    assert all(b"base64" not in body for _, body in box.got)
    await local.aclose()
