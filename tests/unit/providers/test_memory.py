"""Room in memory for the answers of all providers together."""

from __future__ import annotations

import asyncio

from providers.memory import FREE_BYTES, MemoryBudget, Reading


async def read(room: MemoryBudget, *sizes: int, hold: asyncio.Event) -> None:
    """Read pieces within a lease, and keep them until `hold` is set."""
    with room.lease():
        reading = Reading()
        await reading.take(FREE_BYTES)
        for size in sizes:
            await reading.take(size)
        await hold.wait()


async def rest() -> None:
    """Let everybody get as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_does_not_fit_waits() -> None:
    """Two of three fit; the third is read once one of them is done."""
    room, hold = MemoryBudget(100), asyncio.Event()
    tasks = [asyncio.create_task(read(room, 20, 20, hold=hold)) for _ in range(3)]
    await rest()
    assert 80 <= room.used <= 100
    hold.set()
    await asyncio.gather(*tasks)
    assert room.used == 0


async def test_the_oldest_is_never_kept_waiting() -> None:
    """Each holds half, and needs more: the first goes on beyond the limit, so that nobody waits for ever."""
    room, hold = MemoryBudget(100), asyncio.Event()
    hold.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*(read(room, 40, 40, 40, hold=hold) for _ in range(4)))
    assert room.used == 0


async def test_what_is_dropped_makes_room() -> None:
    """A reading that failed gives back its own, and nothing of the others of its attempt."""
    room = MemoryBudget(100)
    with room.lease() as lease:
        first, second = Reading(), Reading()
        await first.take(FREE_BYTES + 30)
        await second.take(FREE_BYTES + 20)
        second.drop()
        assert room.used == 30
        lease.release()
        assert room.used == 0


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    """Nobody waits for somebody who is gone."""
    room, hold = MemoryBudget(100), asyncio.Event()
    first = asyncio.create_task(read(room, 90, hold=hold))
    await rest()
    second = asyncio.create_task(read(room, 90, hold=hold))
    await rest()
    assert room.used == 90
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    hold.set()
    await first
    assert room.used == 0


async def test_small_answers_and_those_of_no_attempt_are_not_counted() -> None:
    """There are many of the first, and nobody to give back the others'."""
    room = MemoryBudget(10)
    with room.lease():
        await Reading().take(FREE_BYTES)
        assert room.used == 0
    await Reading().take(FREE_BYTES * 2)
    assert room.used == 0
