"""Picture work off the event loop: a thread pool of its own, with a budget of pixels."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import TypeVar

from gateway.imaging.processes import DecoderProcesses, LimitExceeded
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from normalization.images import transform
from normalization.images.prepare import PreparedImage, ready
from normalization.images.sniff import BadImage, InputLimits, check, is_quick, sniff
from normalization.values import Header, Image, Resize, Sending, Step
from providers.fairness import FairGate, SharedCapacity, Shares

T = TypeVar("T")


class ImagingBusy(Exception):
    """Too many pictures wait to be decoded: of all callers, or of this one, where the rest is `kept` for others.

    `limit` is what is full.
    """

    limit = "pixels"

    def __init__(self, *, kept: bool = False) -> None:
        super().__init__(self.limit)
        self.kept = kept


class ImagePool:
    """Runs the pure picture functions in threads.

    At most `max_pixels` are being decoded or encoded at any moment; who comes later waits, for these and for a thread:
    owners, which are API keys, take turns. A picture larger than the whole budget runs alone. Callers' pictures are
    turned away where more than `max_waiting` pixels wait already, shared out as `room_for` says; providers' pictures
    never are, because they are paid for. With `decoders` the work is done in processes.

    `limits` are for what callers send. A provider's picture has been checked on the plan, before it was bought: where
    no plan knows its size, it is decoded up to `max_result_pixels`.
    """

    def __init__(
        self,
        *,
        max_pixels: int,
        limits: InputLimits,
        max_result_pixels: int | None = None,
        max_waiting: int | None = None,
        threads: int | None = None,
        decoders: DecoderProcesses | None = None,
    ) -> None:
        self._limits = limits
        self._shares = None if max_waiting is None else Shares(max_waiting, time.monotonic)
        self._max_result_pixels = max_result_pixels or limits.max_pixels
        self._max_pixels = max_pixels
        self._decoders = decoders
        self._prepare = decoders.prepare if decoders else transform.prepare
        self._ready = decoders.ready if decoders else ready
        self._finish = decoders.finish if decoders else transform.finish
        self._pixels = FairGate(max_pixels)
        threads = threads or os.cpu_count() or 1
        self._threads = FairGate(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="imaging")

    async def inspect(self, data: bytes, owner: str = "") -> Image:
        """Read a picture's header and check its structure and size. Raises BadImage."""
        if is_quick(data):
            # A change of thread costs more.
            return _inspect(data, self._limits)
        return await self._run(owner, _inspect, data, self._limits)

    async def recognise(self, data: bytes, owner: str = "") -> Image:
        """Read a provider's picture's header and its structure; its size is no matter here. Raises BadImage.

        Damage beside the pixels is no matter either: the picture is paid for.
        """
        if is_quick(data):
            return Image(data=data, header=_sniff_leniently(data))
        return Image(data=data, header=await self._run(owner, _sniff_leniently, data))

    async def prepare(self, image: Image, owner: str = "") -> Image:
        """The picture as every provider reads it alike: upright, sRGB, without metadata.

        Raises BadImage, and ImagingBusy.
        """
        header = image.header
        if (
            header.plain
            and header.orientation == 1
            and not header.metadata
            and not header.alpha  # it may be opaque all over: then it is none
            and header.format in ("png", "jpeg", "webp")
        ):
            return image
        pixels = header.width * header.height
        self._check_room(pixels, owner)
        async with self._budget(pixels, owner):
            return await self._run(owner, self._prepare, image, self._limits.max_pixels)

    async def ready(self, image: Image, sending: Sending, owner: str = "") -> PreparedImage:
        """The picture as a route is to be sent it. Raises BadImage, and ImagingBusy."""
        pixels = image.header.width * image.header.height
        self._check_room(pixels, owner)
        async with self._budget(pixels, owner):
            return await self._run(owner, self._ready, image, sending, self._limits.max_pixels)

    async def finish(
        self, data: bytes, header: Header, steps: Sequence[Step], *, planned: bool = False, owner: str = ""
    ) -> tuple[Image, tuple[str, ...]]:
        """Bring a provider's picture to what the caller asked for. `planned` says that it has the size of its plan.

        What fails for want of time or memory is tried again while nothing else is decoded, and with more of both.
        Raises BadImage: LimitExceeded where that did not help, with the code `image_too_large` where it is above a
        limit of ours or of the format.
        """
        if transform.is_finished(data, header, steps):
            return Image(data=data, header=header), ()
        here = header.width * header.height
        work = (data, header, steps, here if planned else self._max_result_pixels)
        try:
            async with self._budget(here + sum(step.size.pixels for step in steps if isinstance(step, Resize)), owner):
                return await self._run(owner, self._finish, *work)
        except (LimitExceeded, MemoryError) as error:
            event("imaging.again_alone", logging.WARNING, reason=str(error) or "no memory")
        async with self._budget(self._max_pixels, owner):
            return await self._run(owner, self._finish_alone, *work)

    def _finish_alone(
        self, data: bytes, header: Header, steps: Sequence[Step], most: int
    ) -> tuple[Image, tuple[str, ...]]:
        try:
            if self._decoders is None:
                return transform.finish(data, header, steps, most)
            with closing(self._decoders.generous()) as decoders:
                return decoders.finish(data, header, steps, most)
        except MemoryError:
            message = "It takes more memory to decode than there is."
            raise LimitExceeded("image_too_large", message) from None

    def close(self) -> None:
        """Let the threads end; nothing new starts."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._decoders:
            self._decoders.close()

    @property
    def _free(self) -> int:
        return self._pixels.free

    def _check_room(self, pixels: int, owner: str) -> None:
        waiting = self._pixels.waiting
        if self._shares is None or not waiting:
            return
        room = self._shares.ask(pixels, owner, waiting)
        if room is SharedCapacity.KEPT:
            metrics.REFUSED.labels("share").inc()
            raise ImagingBusy(kept=True)
        if room is SharedCapacity.FULL:
            metrics.SHED.labels(ImagingBusy.limit).inc()
            raise ImagingBusy

    async def _run(self, owner: str, function: Callable[..., T], *args: object) -> T:
        context = contextvars.copy_context()
        async with self._threads.place(owner):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, lambda: context.run(function, *args))

    @asynccontextmanager
    async def _budget(self, pixels: int, owner: str = "") -> AsyncIterator[None]:
        async with self._pixels.place(owner, pixels):
            yield


def _sniff_leniently(data: bytes) -> Header:
    return sniff(data, lenient=True)


def _inspect(data: bytes, limits: InputLimits) -> Image:
    header = sniff(data)
    check(header, limits)
    return Image(data=data, header=header)


__all__ = ["BadImage", "ImagePool", "ImagingBusy", "InputLimits"]
