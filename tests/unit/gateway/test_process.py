"""Work beside the requests is begun again, whatever it fails with, and ends when it is cancelled."""

import asyncio

import pytest

from gateway.process import tend
from tests.support.clock import Skipping


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("a disk"), asyncio.CancelledError(), None])
async def test_it_is_begun_again(error: BaseException | None) -> None:
    """What fails, ends, or is cancelled by something within is begun again, after pauses that grow to half a minute."""
    clock, begun = Skipping(), 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 10:
            enough.set()
            await asyncio.Event().wait()
        if error is not None:
            raise error

    task = asyncio.create_task(tend("work", work, clock))
    await asyncio.wait_for(enough.wait(), 10)
    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == 10
