"""Pictures that the store does not take at once: tried again, until it has them or a caller does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from dataclasses import replace

from gateway.jobs.context import LedgerRecorder
from gateway.jobs.errors import JobResult
from gateway.jobs.postprocess import Keep
from gateway.ledger.records import StoredImage
from providers.clock import Clock

# Between two tries.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# How long it is still tried once a caller was given the whole answer: something on the way may have lost that, and an
# SDK that repeats its call does so within this time.
_HANDED_S = 15.0


async def stored(
    finished: JobResult, recorder: LedgerRecorder, keep: Keep, clock: Clock, handed: asyncio.Event
) -> JobResult:
    """The same result once all of its pictures are stored, or a while after `handed` says that a caller has them.

    Until then the attempts that made them have not ended in the ledger: a process that dies leaves them to another one.
    A cancel changes nothing any more, for there is nothing left to be saved. Raises CancelledError where the book is
    left because the process ends.
    """
    pause, until = _PAUSE_S, math.inf
    while True:
        missing = [image for one in recorder.waiting for image in one.images if image.file is None]
        if not missing or clock.now() >= until:
            break
        await _pause(min(pause, until - clock.now()), recorder, clock, handed)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        if handed.is_set() and until == math.inf:
            pause, until = _PAUSE_S, clock.now() + _HANDED_S
        for image in missing:
            if (name := await _unless_left(keep(image.image), recorder)) is not None:
                finished = _named(finished, recorder, image, name)
    waiting, recorder.waiting = recorder.waiting, []
    for one in waiting:
        recorder.ended(replace(one.attempt, files=tuple(image.to_json() for image in one.images)))
    return finished


def _named(finished: JobResult, recorder: LedgerRecorder, old: StoredImage, name: str) -> JobResult:
    """The result with the name of one more file."""
    new = replace(old, file=name)

    def renewed(images: tuple[StoredImage, ...]) -> tuple[StoredImage, ...]:
        return tuple(new if image is old else image for image in images)

    recorder.waiting = [replace(one, images=renewed(one.images)) for one in recorder.waiting]
    return replace(finished, images=renewed(finished.images))


async def _pause(seconds: float, recorder: LedgerRecorder, clock: Clock, handed: asyncio.Event) -> None:
    """Wait for a while, or until a caller has the pictures, where none has them yet."""
    if handed.is_set():
        return await _slept(seconds, recorder, clock)

    async def either() -> None:
        waits = [asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(handed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    await _unless_left(either(), recorder)
    return None


async def _slept(seconds: float, recorder: LedgerRecorder, clock: Clock) -> None:
    async def slept() -> None:
        await clock.sleep(seconds)

    await _unless_left(slept(), recorder)


async def _unless_left(work: Awaitable[str | None], recorder: LedgerRecorder) -> str | None:
    """Do a piece of work to its end, whoever cancels it, but for the end of the process."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if recorder.leaving:
                task.cancel()
                raise
            this = asyncio.current_task()
            assert this is not None
            this.uncancel()
    return task.result()
