"""The budget of pixels: how much is decoded or encoded at any moment, and in which order."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from gateway.imaging.pool import ImagePool, ImagingBusy, InputLimits
from normalization.images.sniff import sniff
from normalization.values import Transcode
from tests.support.pictures import encoded, noise, taken


@pytest.fixture
async def imaging() -> AsyncIterator[ImagePool]:
    """Picture work with a budget of 100 pixels."""
    made = ImagePool(max_pixels=100, limits=InputLimits(max_pixels=10**6, max_side=10**3))
    yield made
    made.close()


class Work:
    """Pieces of work that hold a part of the budget until they are let go."""

    def __init__(self, imaging: ImagePool) -> None:
        self._imaging = imaging
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    def begin(self, name: str, pixels: int, owner: str = "") -> asyncio.Task[None]:
        """Start a piece of work; it waits for its part of the budget."""
        self._ends[name] = asyncio.Event()

        async def work() -> None:
            async with self._imaging._budget(pixels, owner):
                self.running.append(name)
                try:
                    await self._ends[name].wait()
                finally:
                    self.running.remove(name)

        return asyncio.create_task(work())

    async def end(self, name: str) -> None:
        """Let a piece of work go."""
        self._ends[name].set()
        await asyncio.sleep(0.01)


async def test_budget_and_order(imaging: ImagePool) -> None:
    """Work runs while its pixels fit; who comes later waits behind who came before, even where it would fit."""
    work = Work(imaging)
    for name, pixels in (("a", 60), ("b", 60), ("c", 10)):
        work.begin(name, pixels)
        await asyncio.sleep(0.01)

    assert work.running == ["a"]
    await work.end("a")
    assert work.running == ["b", "c"]
    await work.end("b")
    await work.end("c")
    assert imaging._free == 100


async def test_a_picture_above_the_budget_runs_alone(imaging: ImagePool) -> None:
    """A picture larger than the whole budget is not refused: it has all of it."""
    work = Work(imaging)
    for name, pixels in (("small", 10), ("huge", 5000), ("late", 10)):
        work.begin(name, pixels)
        await asyncio.sleep(0.01)

    assert work.running == ["small"]
    await work.end("small")
    assert work.running == ["huge"]
    await work.end("huge")
    assert work.running == ["late"]
    await work.end("late")


async def test_leaving_gives_back(imaging: ImagePool) -> None:
    """Work that is cancelled, waiting or running, takes nothing of the budget with it."""
    work = Work(imaging)
    first, waiting = work.begin("first", 100), work.begin("waiting", 100)
    await asyncio.sleep(0.01)
    last = work.begin("last", 100)
    await asyncio.sleep(0.01)

    waiting.cancel()
    first.cancel()
    await asyncio.sleep(0.01)
    assert work.running == ["last"]
    last.cancel()
    await asyncio.sleep(0.01)

    assert imaging._free == 100


async def test_too_many_wait() -> None:
    """A caller's picture is turned away where too many pixels wait already; a provider's picture waits all the same."""
    gif, png = taken(encoded(noise(10, 10), "gif")), encoded(noise(10, 10), "png")
    limits = InputLimits(max_pixels=10**6, max_side=10**3)
    imaging = ImagePool(max_pixels=100, max_waiting=200, limits=limits)
    work = Work(imaging)
    work.begin("running", 100)
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(imaging.prepare(gif)) for _ in range(2)]
    await asyncio.sleep(0.01)

    with pytest.raises(ImagingBusy):
        await imaging.prepare(gif)
    paid = asyncio.create_task(imaging.finish(png, sniff(png), [Transcode(format="jpeg")]))
    await work.end("running")
    assert [(await one).format for one in waiting] == ["png", "png"]
    assert (await paid)[0].format == "jpeg"
    assert (await imaging.prepare(gif)).format == "png"
    imaging.close()


async def test_owners_take_turns(imaging: ImagePool) -> None:
    """Whoever comes with one picture is not behind all that another one has."""
    work = Work(imaging)
    for name, owner in (("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b")):
        work.begin(name, 100, owner)
        await asyncio.sleep(0.01)
    order = []
    for _ in range(4):
        order += work.running
        await work.end(work.running[0])
    assert order == ["a0", "b0", "a1", "a2"]


async def test_threads_are_given_in_turn() -> None:
    """Where the threads are all taken, and not the pixels, owners take turns as well."""
    imaging = ImagePool(max_pixels=1000, limits=InputLimits(max_pixels=10**6, max_side=10**3), threads=1)
    let_go, order = threading.Event(), list[str]()

    def work(name: str) -> None:
        let_go.wait(10)
        order.append(name)

    names = ["a0", "a1", "a2", "a3", "b0"]
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(imaging._run(name[0], work, name)))
        await asyncio.sleep(0)
    let_go.set()
    await asyncio.gather(*tasks)
    assert order == ["a0", "b0", "a1", "a2", "a3"]
    imaging.close()


async def test_waiting_pixels_are_shared_out() -> None:
    """One key's pictures may fill the line; another one finds an eighth more, and one refused gets its share."""
    gif = taken(encoded(noise(10, 10), "gif"))
    imaging = ImagePool(max_pixels=100, max_waiting=800, limits=InputLimits(max_pixels=10**6, max_side=10**3))
    work = Work(imaging)
    work.begin("running", 100, "a")
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(imaging.prepare(gif, "a")) for _ in range(8)]
    await asyncio.sleep(0.01)
    with pytest.raises(ImagingBusy) as full:
        await imaging.prepare(gif, "a")
    other = asyncio.create_task(imaging.prepare(gif, "b"))
    await asyncio.sleep(0.01)
    with pytest.raises(ImagingBusy):
        await imaging.prepare(gif, "b")
    for task in waiting[:2]:
        task.cancel()
    await asyncio.sleep(0.01)
    with pytest.raises(ImagingBusy) as kept:
        await imaging.prepare(gif, "a")
    assert (full.value.kept, kept.value.kept) == (False, True)
    await work.end("running")
    assert (await other).format == "png"
    await asyncio.gather(*waiting, return_exceptions=True)
    imaging.close()
