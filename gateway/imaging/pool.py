"""Image work off the event loop: a thread pool with a budget of pixels."""

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
    """Too many images are waiting to be decoded: in total, or, if `kept`, for this client, as the rest is reserved for
    others. `limit` names the exhausted limit.
    """

    limit = "pixels"

    def __init__(self, *, kept: bool = False) -> None:
        super().__init__(self.limit)
        self.kept = kept


class ImagePool:
    """Runs the pure image functions in threads.

    At most `max_pixels` are decoded or encoded at any moment; further images wait for pixels and a thread, and owners
    (API keys) take turns. An image larger than the whole budget runs alone. Clients' images are refused if more than
    `max_waiting` pixels are already waiting, with fair shares per owner; providers' images never are, because they are
    paid for. With `decoders` the work is done in processes.

    `limits` apply to clients' images. A provider's image was checked in the plan, before it was bought; if the plan
    does not know its size, it is decoded up to `max_result_pixels`.
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
        """Read an image's header and check its structure and size. Raises BadImage."""
        if is_quick(data):
            # Switching to a thread would cost more.
            return _inspect(data, self._limits)
        return await self._run(owner, _inspect, data, self._limits)

    async def recognise(self, data: bytes, owner: str = "") -> Image:
        """Read the header and structure of a provider's image, of any size. Raises BadImage.

        Damage outside the pixel data is tolerated, because the image is paid for.
        """
        if is_quick(data):
            return Image(data=data, header=_sniff_leniently(data))
        return Image(data=data, header=await self._run(owner, _sniff_leniently, data))

    async def prepare(self, image: Image, owner: str = "") -> Image:
        """The image in a form that all providers read the same way: upright, sRGB, without metadata.

        Raises BadImage and ImagingBusy.
        """
        header = image.header
        if (
            header.plain
            and header.orientation == 1
            and not header.metadata
            and not header.alpha  # it may be fully opaque, and is then removed
            and header.format in ("png", "jpeg", "webp")
        ):
            return image
        pixels = header.width * header.height
        self._check_room(pixels, owner)
        async with self._budget(pixels, owner):
            return await self._run(owner, self._prepare, image, self._limits.max_pixels)

    async def ready(self, image: Image, sending: Sending, owner: str = "") -> PreparedImage:
        """The image prepared for a route. Raises BadImage and ImagingBusy."""
        pixels = image.header.width * image.header.height
        self._check_room(pixels, owner)
        async with self._budget(pixels, owner):
            return await self._run(owner, self._ready, image, sending, self._limits.max_pixels)

    async def finish(
        self, data: bytes, header: Header, steps: Sequence[Step], *, planned: bool = False, owner: str = ""
    ) -> tuple[Image, tuple[str, ...]]:
        """Finish a provider's image as the client requested. `planned` says that it has the planned size.

        If time or memory is exceeded, it is tried again alone, with more of both. Raises BadImage: LimitExceeded if
        that fails too, with the code `image_too_large` if a limit of ours or of the format is exceeded.
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
            message = "Decoding it needs more memory than available."
            raise LimitExceeded("image_too_large", message) from None

    def close(self) -> None:
        """Shut down: running work ends, no new work starts."""
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
