"""The gate before the bodies: what is counted, what is turned away, and when room is given back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.access.load import Hold, Load, Overloaded


class Jobs:
    """As many jobs as the test says."""

    count = 0


async def body(hold: Hold, *sizes: int) -> None:
    """A body in pieces of these sizes."""

    async def chunks() -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    async for _ in hold.counted(chunks()):
        pass


@pytest.fixture
def load() -> Load:
    """Room for 100 bytes and 2 jobs."""
    return Load(max_bytes=100, max_jobs=2, jobs=lambda: Jobs.count)


async def test_what_is_announced(load: Load) -> None:
    """It is held against the room that there is, and takes none by itself."""
    with load.admit(60) as first:
        with load.admit(60) as second:
            await body(first, 30, 30)
            with pytest.raises(Overloaded) as caught, load.admit(41):
                pass
            assert caught.value.limit == "bytes"
            await body(second, 40)
            assert load.held == 100
        assert load.held == 60
    assert load.held == 0


async def test_what_was_not_announced(load: Load) -> None:
    """It counts as it comes; what there is no room for is not taken, and the other goes on."""
    with load.admit(None) as first:
        await body(first, 60)
        with pytest.raises(Overloaded), load.admit(None) as second:
            await body(second, 30, 11)
        assert load.held == 60
        await body(first, 40)
    assert load.held == 0


async def test_a_body_larger_than_all_the_room(load: Load) -> None:
    """It comes alone, or not at all."""
    with load.admit(500) as large:
        await body(large, 60, 440)
        with pytest.raises(Overloaded), load.admit(1):
            pass
    with load.admit(1) as small:
        await body(small, 1)
        with pytest.raises(Overloaded), load.admit(500):
            pass
    assert load.held == 0


async def test_passed_on(load: Load) -> None:
    """Bytes that a job has are held until the job lets go of them, and given back once."""
    with load.admit(50) as hold:
        await body(hold, 50)
        let_go = hold.pass_on()
    assert load.held == 50
    let_go()
    assert load.held == 0


def test_jobs(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there are enough jobs nobody is let in."""
    monkeypatch.setattr(Jobs, "count", 2)
    with pytest.raises(Overloaded) as caught, load.admit(0):
        pass
    assert caught.value.limit == "jobs"
