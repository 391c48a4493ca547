"""The adapter for fal before a simulated fal, as its tests need it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from normalization.values import Header, Image, Value
from providers.base import Handle, Outcome, Upstream, UpstreamJob
from providers.fal.adapter import Fal
from providers.http import client as http
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from tests.simulators.common import size, tiny
from tests.simulators.fal import KEY, FalAi
from tests.support import adapters
from tests.support.clock import Skipping

CLARITY = "fal-ai/clarity-upscaler"
SECRET = "the prompt that nobody may see"


@pytest.fixture(scope="session")
def running_fal() -> Iterator[FalAi]:
    """fal's hosts, which start once for all tests. Each test resets them."""
    with FalAi().running() as simulated:
        yield simulated


class Eager(Pace):
    """Looks often, so that little time passes on the clock before a job is seen to end."""

    @override
    def delays(self, key: str, *, age: float = 0.0) -> Iterator[float]:
        return itertools.repeat(0.05)


def picture(data: bytes | None = None) -> Image:
    """24 x 16, where nothing else is given."""
    data = tiny() if data is None else data
    width, height = size(data)
    return Image(data=data, header=Header(format="png", width=width, height=height))


class Joint(Skipping):
    """A clock that skips time for fal's jobs as well: those that run are as far as if it had passed."""

    def __init__(self, sim: FalAi) -> None:
        super().__init__()
        self._sim = sim

    @override
    async def sleep(self, seconds: float) -> None:
        for task in list(self._sim._tasks.values()):
            task.begun -= seconds
        await super().sleep(seconds)


def soon(seconds: float = 3600) -> float:
    """A deadline by the event loop's clock; far enough, if not said otherwise, for one that skips time as well."""
    return asyncio.get_running_loop().time() + seconds


def job(
    model: str = CLARITY, seconds: float = 3600, options: Mapping[str, Value] | None = None, **payload: Value
) -> UpstreamJob:
    """A job with a picture and a prompt, and what else it is to have."""
    upstream = Upstream(model=model, options=options if options is not None else {"usd_per_unit": 0.03})
    return UpstreamJob(
        id="dr-1",
        upstream=upstream,
        payload={"image_url": picture(), "prompt": SECRET, **payload},
        deadline=soon(seconds),
    )


@asynccontextmanager
async def adapter(sim: FalAi, **settings: Any) -> AsyncIterator[Fal]:
    """The adapter over the gateway's own clients.

    Its patience is short, and its waits take no time, where a test does not say otherwise.
    """
    clock = settings.get("clock") or Joint(sim)
    given: dict[str, Any] = {
        "clock": clock,
        "key": KEY,
        "queue_url": sim.queue_url,
        "run_url": sim.run_url,
        "rest_url": sim.rest_url,
        "api_url": sim.api_url,
        "url_policy": UrlPolicy(sim.origins),
        "pace": Eager(clock),
        "lost_after_s": 0.1,
        "reconcile_s": 1.0,
        **settings,
    }
    async with http.client() as client, downloads_client(given["url_policy"]) as downloads:
        fal = adapters.fal(http=client, downloads=downloads, **given)
        yield fal
        await fal.aclose()


async def run(fal: Fal, **payload: Value) -> Outcome:
    given: dict[str, Any] = dict(payload)
    handle = await fal.submit(job(**given))
    return await fal.wait(handle, soon())


async def begun(fal: Fal) -> Handle:
    return await fal.submit(job())


def no_key_went_astray(sim: FalAi) -> bool:
    """Whether nothing that came to the host for files had an authorization."""
    return not any("authorization" in seen.headers for seen in sim.seen if seen.host == "media")
