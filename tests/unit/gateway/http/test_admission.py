"""The gate before the bodies: what is counted, what is turned away, and when room is given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from gateway.http.admission import AdmissionControl, Reservation, ServerOverloaded


class Jobs:
    """As many jobs as the test says."""

    count = 0


async def body(reservation: Reservation, *sizes: int) -> None:
    """A body in pieces of these sizes."""

    async def chunks() -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    async for _ in reservation.counted(chunks()):
        pass


@pytest.fixture
def load() -> AdmissionControl:
    """Room for 100 bytes and 2 jobs."""
    return AdmissionControl(max_bytes=100, max_jobs=2, jobs=lambda: {"": Jobs.count})


async def test_what_is_announced(load: AdmissionControl) -> None:
    """It is held against the room that there is, and takes none by itself."""
    with load.admit(60) as first:
        with load.admit(60) as second:
            await body(first, 30, 30)
            with pytest.raises(ServerOverloaded) as caught, load.admit(41):
                pass
            assert caught.value.limit == "bytes"
            await body(second, 40)
            assert load.held == 100
        assert load.held == 60
    assert load.held == 0


async def test_what_was_not_announced(load: AdmissionControl) -> None:
    """It counts as it comes; what there is no room for is not taken, and the other goes on."""
    with load.admit(None) as first:
        await body(first, 60)
        with pytest.raises(ServerOverloaded), load.admit(None) as second:
            await body(second, 30, 11)
        assert load.held == 60
        await body(first, 40)
    assert load.held == 0


async def test_a_body_larger_than_all_the_room(load: AdmissionControl) -> None:
    """It comes alone, or not at all."""
    with load.admit(500) as large:
        await body(large, 60, 440)
        with pytest.raises(ServerOverloaded), load.admit(1):
            pass
    with load.admit(1) as small:
        await body(small, 1)
        with pytest.raises(ServerOverloaded), load.admit(500):
            pass
    assert load.held == 0


async def test_passed_on(load: AdmissionControl) -> None:
    """Bytes that a job has are held until the job lets go of them, and given back once."""
    with load.admit(50) as reservation:
        await body(reservation, 50)
        let_go = reservation.detach()
    assert load.held == 50
    let_go()
    assert load.held == 0


def test_jobs(load: AdmissionControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there are enough jobs nobody is let in."""
    monkeypatch.setattr(Jobs, "count", 2)
    with pytest.raises(ServerOverloaded) as caught, load.admit(0):
        pass
    assert caught.value.limit == "jobs"


async def test_bytes_are_shared_out() -> None:
    """One key may fill the room; another one finds an eighth more, and gets its share of what is given back."""
    load = AdmissionControl(max_bytes=1000, max_jobs=9, jobs=dict, clock=lambda: 0.0)
    with ExitStack() as stack:
        calls = [stack.enter_context(load.admit(100, "a")) for _ in range(10)]
        for call in calls:
            await body(call, 100)
        with pytest.raises(ServerOverloaded) as full, load.admit(1, "a"):
            pass
        with load.admit(120, "b") as first:
            await body(first, 60, 60)
            with pytest.raises(ServerOverloaded), load.admit(400, "b"):
                pass
        for call in calls[:4]:
            call.close()
        with pytest.raises(ServerOverloaded) as kept, load.admit(100, "a"):
            pass
        with load.admit(400, "b") as second:
            await body(second, 400)
            assert load.held == 1000
    assert (full.value.kept, kept.value.kept) == (False, True)
    assert load.held == 0


def test_jobs_are_shared_out() -> None:
    """A key that has no job going on begins one beyond the bound; of what becomes free it gets its share."""
    going = {"a": 8}
    load = AdmissionControl(max_bytes=9, max_jobs=8, jobs=lambda: going, clock=lambda: 0.0)
    with load.admit(0, "b") as call:
        call.begin()
        with pytest.raises(ServerOverloaded), load.admit(0, "b"):
            pass
        going["a"] = 7
        going["b"] = 1
        call.detach()
    going["a"] = 6
    with pytest.raises(ServerOverloaded) as caught, load.admit(0, "a"):
        pass
    assert (caught.value.limit, caught.value.kept) == ("jobs", True)
    with load.admit(0, "b"):
        pass


def test_calls_that_are_about_to_begin_a_job_count() -> None:
    """Of calls that come at once no more begin one than there is room for; what was not begun is given back."""
    load = AdmissionControl(max_bytes=9, max_jobs=2, jobs=dict, clock=lambda: 0.0)
    with ExitStack() as stack:
        calls = [stack.enter_context(load.admit(0)) for _ in range(3)]
        calls[0].begin()
        calls[1].begin()
        with pytest.raises(ServerOverloaded):
            calls[2].begin()
        calls[0].detach()
        calls[2].begin()
    with load.admit(0):
        pass
