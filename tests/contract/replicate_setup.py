"""The adapter for Replicate before a simulated one, as its tests need it."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from normalization.values import Header, Image, Value
from providers.base import Outcome, Upstream, UpstreamJob
from providers.http import client as http
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.replicate.adapter import Replicate
from tests.simulators.common import tiny
from tests.simulators.replicate import TOKEN, USD_PER_SECOND, Simulator
from tests.simulators.replicate_models import CLARITY
from tests.support import adapters
from tests.support.clock import Skipping

PICTURE = tiny(24, 16)
IMAGE = Image(data=PICTURE, header=Header(format="png", width=24, height=16))
DATA_URI = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
UPSTREAM = Upstream(model="philz1337x/clarity-upscaler", options={"version": CLARITY, "usd_per_second": USD_PER_SECOND})


@pytest.fixture(scope="session")
def running_replicate() -> Iterator[Simulator]:
    """Replicate's hosts, which start once for all tests. Each test resets them."""
    with Simulator().running() as running:
        yield running


class Joint(Skipping):
    """A clock that skips time for Replicate's jobs as well: those that run are as far as if it had passed."""

    def __init__(self, sim: Simulator) -> None:
        super().__init__()
        self._sim = sim

    @override
    async def sleep(self, seconds: float) -> None:
        for prediction in list(self._sim.jobs.values()):
            prediction.created -= seconds
            prediction.cancelled -= seconds
        await super().sleep(seconds)


class Eager(Pace):
    """Looks often, so that little time passes on the clock before a job is seen to end."""

    @override
    def delays(self, key: str, *, age: float = 0.0) -> Iterator[float]:
        return itertools.repeat(0.05)


def soon(seconds: float = 3600) -> float:
    """A deadline by the event loop's clock; far enough, if not said otherwise, for one that skips time as well."""
    return asyncio.get_running_loop().time() + seconds


def job(seconds: float = 3600, upstream: Upstream = UPSTREAM, **payload: Value) -> UpstreamJob:
    """A job with a picture of 24 x 16, and what else it is to have."""
    given: dict[str, Value] = {"image": IMAGE, "scale_factor": 2, "seed": 77, **payload}
    return UpstreamJob(id="attempt-1", upstream=upstream, payload=given, deadline=soon(seconds))


@asynccontextmanager
async def adapter(sim: Simulator, **settings: Any) -> AsyncIterator[Replicate]:
    """The adapter over the gateway's own clients.

    Its patience is short, and its waits take no time, where a test does not say otherwise.
    """
    url_policy = UrlPolicy(sim.origins)
    clock = settings.get("clock") or Joint(sim)
    given: dict[str, Any] = {
        "clock": clock,
        "pace": Eager(clock),
        "key": TOKEN,
        "base_url": sim.url,
        "submit_timeout_s": 0.5,
        "poll_timeout_s": 0.3,
        "reconcile_s": 1.0,
        "cancel_timeout_s": 0.6,
        "vanish_s": 0.2,
        "wait_s": 0,
        "max_result_bytes": 1_000_000,
    }
    async with http.client() as api, downloads_client(url_policy) as downloads:
        yield adapters.replicate(http=api, downloads=downloads, url_policy=url_policy, **{**given, **settings})


async def run(provider: Replicate, given: UpstreamJob | None = None, seconds: float = 3600) -> Outcome:
    """Submit a job and wait for it."""
    handle = await provider.submit(given or job())
    return await provider.wait(handle, soon(seconds))
