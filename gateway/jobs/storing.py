"""Retries storing images that the store did not accept, until they are stored or a client has received them."""

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

# Delay between attempts.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# How long to keep trying after a client was sent the whole response: it may have been lost on the way, and an SDK
# retries within this time.
_HANDED_S = 15.0


async def stored(
    finished: JobResult, recorder: LedgerRecorder, keep: Keep, clock: Clock, handed: asyncio.Event
) -> JobResult:
    """The same result once all its images are stored, or some time after `handed` says that a client received them.

    Until then their attempts have not ended in the ledger: if the process dies, another one resumes them. A cancel has
    no effect, because everything is paid for already. Raises CancelledError if the process shuts down.
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
    """Set the file name of one more image in the result and in the recorder."""
    new = replace(old, file=name)

    def renewed(images: tuple[StoredImage, ...]) -> tuple[StoredImage, ...]:
        return tuple(new if image is old else image for image in images)

    recorder.waiting = [replace(one, images=renewed(one.images)) for one in recorder.waiting]
    return replace(finished, images=renewed(finished.images))


async def _pause(seconds: float, recorder: LedgerRecorder, clock: Clock, handed: asyncio.Event) -> None:
    """Sleep for `seconds`, or until a client has received the images if none has yet."""
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
    """Complete `work` despite cancellations, except when the process shuts down."""
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
