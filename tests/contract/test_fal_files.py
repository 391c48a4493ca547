"""The adapter for fal before its storage: large pictures, and where our key goes on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from providers.errors import Unreached, Unusable
from providers.fal.adapter import Fal
from tests.contract.fal_setup import adapter, job, no_key_went_astray, picture, run
from tests.simulators.common import Fault, size, tiny
from tests.simulators.fal import KEY, FalAi


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


async def test_a_large_picture_goes_to_the_storage_first(sim: FalAi) -> None:
    """The key goes to the REST host alone, the bytes to where it says, and their address into the input."""
    async with adapter(sim, data_uri_bytes=10) as fal:
        outcome = await run(fal, extra=[picture(tiny(8, 8))])
    assert size(outcome.images[0]) == (48, 32)
    first, second = sim.asked("POST", host="rest")
    assert first.path == "/storage/upload/initiate"
    assert first.headers["authorization"] == f"Key {KEY}"
    assert first.json == second.json == {"file_name": "picture.png", "content_type": "image/png"}
    puts = sim.asked("PUT", host="media")
    assert [put.body for put in puts] == [tiny(), tiny(8, 8)]
    assert [put.headers["content-type"] for put in puts] == ["image/png"] * 2
    assert no_key_went_astray(sim)
    sent = sim.asked("POST")[0].json
    assert sent["image_url"].startswith(f"{sim.media_url}/files/")
    assert sent["extra"][0].startswith(f"{sim.media_url}/files/")


async def test_a_small_picture_does_not(fal: Fal, sim: FalAi) -> None:
    """A data URI saves two requests."""
    await run(fal)
    assert sim.asked("POST", host="rest") == []


async def test_an_upload_that_breaks_is_done_again(sim: FalAi) -> None:
    """An upload costs nothing, so it may be repeated."""
    sim.faults.script("upload", None, Fault(kind="cut"))
    async with adapter(sim, data_uri_bytes=10) as fal:
        await run(fal)
    assert sim.books.billed == 1
    assert len(sim.asked("POST")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, body={"detail": "x"}),
        Fault(status=502, body=b"<html>"),
        Fault(status=200, body={"upload_url": 1}),
        Fault(kind="cut"),
    ],
)
async def test_an_upload_that_fails_leaves_nothing_behind(sim: FalAi, fault: Fault) -> None:
    """Nothing was submitted, so the next route is free."""
    sim.faults.always("upload", fault)
    async with adapter(sim, data_uri_bytes=10) as fal:
        with pytest.raises(Unreached, match="could not be uploaded"):
            await fal.submit(job())
    assert sim.books.taken == []


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/x", "{queue}/x", "https://10.0.0.1/x", "file:///etc/passwd"]
)
async def test_a_picture_is_not_put_anywhere_but_into_the_public(sim: FalAi, address: str) -> None:
    """Where the storage says to put a picture is an answer's address: the guard looks at it before anything is sent."""
    there = address.format(queue=sim.queue_url)
    sim.faults.always("upload", Fault(status=200, body={"upload_url": there, "file_url": "https://v3.fal.media/x"}))
    async with adapter(sim, data_uri_bytes=10) as fal:
        with pytest.raises(Unreached, match="may not be used"):
            await fal.submit(job())
    assert sim.books.taken == []


async def test_an_upload_our_account_may_not_make(sim: FalAi) -> None:
    """A locked account is found at the upload as well."""
    sim.locked = True
    async with adapter(sim, data_uri_bytes=10) as fal:
        with pytest.raises(Unusable):
            await fal.submit(job())
