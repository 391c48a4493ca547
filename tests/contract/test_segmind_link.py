"""Segmind, which can neither be asked for a lost job nor tell of one by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from normalization.values import Header, Image
from providers.base import PendingSubmit, Upstream, UpstreamJob
from providers.errors import Failed, Unknown
from providers.http import client as http
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.segmind.adapter import Segmind
from tests.simulators import segmind as simulator
from tests.simulators.common import Fault, size, tiny
from tests.simulators.segmind import KEY
from tests.support import adapters
from tests.support.clock import Skipping
from tests.support.linked import Refused, Told, bill, crashed, stored

V2 = Upstream(model="clarity-upscaler")
V1 = Upstream(model="clarity-upscaler", options={"api": "v1"})
PICTURE = Image(data=tiny(), header=Header(format="png", width=24, height=16))


def later() -> float:
    """A deadline that nobody comes to: an hour from now, on a clock on which waits take no time."""
    return asyncio.get_running_loop().time() + 3600


def job(upstream: Upstream = V2) -> UpstreamJob:
    return UpstreamJob(id="job-1", upstream=upstream, payload={"image": PICTURE, "scale_factor": 2}, deadline=later())


@pytest.fixture
def sim(segmind_host: simulator.Segmind) -> Iterator[simulator.Segmind]:
    """The provider. Whatever a test does, no job is paid twice."""
    segmind_host.reset()
    yield segmind_host
    assert segmind_host.books.billed <= 1


@asynccontextmanager
async def adapter(sim: simulator.Segmind) -> AsyncIterator[Segmind]:
    """The adapter of one process."""
    url_policy, clock = UrlPolicy(allow=sim.origins), Skipping()
    settings: dict[str, Any] = {"key": KEY, "base_url": sim.url, "upload_url": sim.upload_url, "clock": clock}
    async with http.client() as api, downloads_client(url_policy) as downloads:
        made = adapters.segmind(http=api, downloads=downloads, url_policy=url_policy, pace=Pace(clock), **settings)
        yield made
        await made.aclose()


@pytest.mark.parametrize("upstream", [V2, V1], ids=["v2", "v1"])
async def test_a_submit_is_announced_after_the_upload(sim: simulator.Segmind, upstream: Upstream) -> None:
    """Once, before anything is bought; nothing that could be written down would find the job again."""

    class Counting(Told):
        @override
        async def sending(self, data: Any) -> None:
            self.at_sending = [sim.books.count("POST", "upload"), len(sim.books.requests)]
            await super().sending(data)

    link = Counting()
    async with adapter(sim) as provider:
        handle = await provider.submit(job(upstream), link)
        assert size((await provider.wait(handle, later(), link)).images[0]) == (48, 32)
    assert link.at_sending == [1, 1]
    assert link.sent == [{}]
    assert link.shares == []
    assert handle.held == (upstream is V1)


@pytest.mark.parametrize("upstream", [V2, V1], ids=["v2", "v1"])
async def test_where_it_cannot_be_written_down_nothing_is_sent(sim: simulator.Segmind, upstream: Upstream) -> None:
    """What `sending` raises stops the submit."""
    async with adapter(sim) as provider:
        with pytest.raises(Refused):
            await provider.submit(job(upstream), Told(refuses=True))
    assert sim.books.taken == []
    assert sim.books.count("POST", "clarity-upscaler") == 0


async def test_a_lost_job_stays_unknown(sim: simulator.Segmind) -> None:
    """It was taken and paid, and nothing is sent to find out; no webhook comes that could tell."""
    sim.faults.script("submit", Fault(kind="hang", after=True))
    async with adapter(sim) as first:
        sent = await crashed(first, job(), Told(), lambda: sim.books.taken)
    count = len(sim.books.requests)
    async with adapter(sim) as second:
        for heard in (None, sim.books.taken[0]):
            with pytest.raises(Unknown):
                await second.recover(
                    PendingSubmit(id=sent.id, upstream=sent.upstream, at=sent.at, data=sent.data, heard=heard)
                )
        assert await second.parse_webhook({"webhook-id": "x"}, b'{"request_id": "x"}') is None
    assert len(sim.books.requests) == count
    assert not Segmind.cancels


async def test_a_stored_job_is_waited_for_by_another_process(sim: simulator.Segmind) -> None:
    """A v2 job; one that is held says so."""
    async with adapter(sim) as first:
        handle = stored(await first.submit(job()))
    link = Told()
    async with adapter(sim) as second:
        assert size((await second.wait(handle, later(), link)).images[0]) == (48, 32)
    assert not handle.held
    assert link.slept


async def test_a_failed_job_is_free(sim: simulator.Segmind) -> None:
    """Segmind bills success alone."""
    sim.faults.script("job", Fault(kind="job", word="FAILED"))
    async with adapter(sim) as provider:
        handle = await provider.submit(job())
        with pytest.raises(Failed) as caught:
            await provider.wait(handle, later())
    assert bill(caught.value) == (0, False)
