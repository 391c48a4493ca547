"""The adapter against the worker that Darkroom ships."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterator

import httpx
import PIL.Image
import pytest

from normalization.values import Header, Image, Value
from providers.base import Outcome, Readiness, Upstream, UpstreamJob
from providers.errors import Rejected
from providers.local.adapter import LocalProvider
from tests.support import adapters
from tests.support.fake_cog import until
from tests.support.paths import COFFEE
from tests.support.ports import free_port

UPSTREAM = Upstream(model="lanczos-bp", options={"inputs": ["image", "scale"]})


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    """A worker process with two slots."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "providers.worker", "--port", str(port), "--slots", "2"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
async def local(client: httpx.AsyncClient, worker: str) -> LocalProvider:
    provider = adapters.local_provider(client, workers=[worker])
    await provider.start()
    await until(lambda: provider.readiness(UPSTREAM)[0] is Readiness.READY, 60)
    return provider


async def run(local: LocalProvider, name: str, **payload: Value) -> Outcome:
    deadline = asyncio.get_running_loop().time() + 60
    handle = await local.submit(UpstreamJob(id=name, upstream=UPSTREAM, payload=payload, deadline=deadline))
    return await local.wait(handle, deadline)


def coffee() -> Image:
    data = COFFEE.read_bytes()
    with PIL.Image.open(io.BytesIO(data)) as image:
        return Image(data=data, header=Header(format="png", width=image.width, height=image.height))


async def test_pictures_are_enlarged_two_at_a_time(local: LocalProvider) -> None:
    """The worker's slots are learnt from it, and each job gets its own picture back."""
    assert [(state.engine, state.slots) for state in local.describe()] == [("lanczos-bp", 2)]
    image = coffee()
    outcomes = await asyncio.gather(*(run(local, f"x{scale}", image=image, scale=scale) for scale in (1, 2, 3)))
    for scale, outcome in zip((1, 2, 3), outcomes, strict=True):
        with PIL.Image.open(io.BytesIO(outcome.images[0])) as made:
            assert made.size == (scale * image.width, scale * image.height)
        assert outcome.seconds is not None
        assert outcome.seconds > 0
    await local.aclose()


async def test_its_refusal_names_the_input(local: LocalProvider) -> None:
    """A value that it does not take comes back as a sentence about that value."""
    with pytest.raises(Rejected, match="scale"):
        await run(local, "bad", image=coffee(), scale=99)
    await local.aclose()
