"""The gateway's own adapter for Cog workers, with our worker behind it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image as Pictures

from normalization.values import Header, Image, Value
from providers.base import Readiness, Upstream, UpstreamJob
from providers.errors import Failed, ProviderError, Rejected
from providers.http import client as http
from providers.local.adapter import LocalProvider
from tests.support import adapters
from tests.support.links import Told, letterbox
from tests.support.workers import PLAY, free, until, worker


@asynccontextmanager
async def adapter(url: str) -> AsyncIterator[LocalProvider]:
    async with http.client() as client:
        made = adapters.local_provider(client, workers=[url], health_interval_s=0.05)
        await made.start()
        try:
            await until(lambda: made.readiness(Upstream(model=""))[0] is Readiness.READY)
            yield made
        finally:
            await made.aclose()


def job(model: str, payload: Mapping[str, Value], name: str = "job-1") -> UpstreamJob:
    return UpstreamJob(
        id=name, upstream=Upstream(model=model), payload=payload, deadline=asyncio.get_running_loop().time() + 20
    )


async def test_a_photograph(tmp_path: Path, photo: bytes) -> None:
    """A photograph goes through the adapter and the worker, and comes back enlarged."""
    picture = Image(data=photo, header=Header(format="png", width=600, height=400))
    with worker(tmp_path) as running:
        async with adapter(running.url) as local:
            wanted = job("lanczos-bp", {"image": picture, "scale": 1.5, "sharpen": 1})
            outcome = await local.wait(await local.submit(wanted), wanted.deadline)

    [made] = outcome.images
    assert Pictures.open(io.BytesIO(made)).size == (900, 600)
    assert outcome.seconds is not None
    assert 0 < outcome.seconds < 20


async def test_refusals(tmp_path: Path, photo: bytes) -> None:
    """What the worker will not make is the caller's mistake; what it cannot read is a failure."""
    picture = Image(data=photo, header=Header(format="png", width=600, height=400))
    torn = Image(data=photo[:1000], header=Header(format="png", width=600, height=400))
    cases: list[tuple[dict[str, Value], type[ProviderError], str]] = [
        ({"image": picture, "scale": 17}, Rejected, "scale"),
        ({"image": picture, "scale": 4}, Rejected, "2400 x 1600"),
        ({"image": torn}, Failed, "cannot be decoded"),
    ]
    with worker(tmp_path, "--max-output-pixels=1000000") as running:
        async with adapter(running.url) as local:
            for payload, error, told in cases:
                wanted = job("lanczos-bp", payload)
                handle = await local.submit(wanted)
                with pytest.raises(error, match=told):
                    await local.wait(handle, wanted.deadline)


async def test_cancel(tmp_path: Path) -> None:
    """A job that the adapter cancels leaves its slot at the worker."""
    with worker(tmp_path, *PLAY, "--slots=1") as running:
        async with adapter(running.url) as local, running.client() as client:
            wanted = job("play", {"text": "x", "seconds": 20})
            handle = await local.submit(wanted)
            await asyncio.sleep(0.3)
            assert not await free(client)
            await local.cancel(handle)
            assert await free(client)


@pytest.mark.parametrize("allowed", [True, False])
async def test_webhooks_are_given_to_a_worker_that_allows_them(tmp_path: Path, allowed: bool) -> None:
    """One that was started with them tells how it goes; one that was not would refuse, and is not asked to."""
    arguments = ("--webhooks",) if allowed else ()
    with letterbox() as box, worker(tmp_path, *PLAY, *arguments) as running:
        async with adapter(running.url) as local:
            wanted = job("play", {"text": "x", "seconds": 0.8, "loud": True})
            handle = await local.submit(wanted, Told(webhook=box.url))
            assert (await local.wait(handle, wanted.deadline)).images == (b"x",)
            if allowed:  # they come on their own way
                await until(lambda: box.got, 60)
            said = [await local.parse_webhook(headers, body) for headers, body in box.got]
    assert (said != []) is allowed
    assert all(one is not None and one.id == handle.id for one in said)
    assert all(b"output" not in body for _, body in box.got)
