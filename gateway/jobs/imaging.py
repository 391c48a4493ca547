"""Picture work off the event loop: a thread pool of its own, with a budget of pixels."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from gateway.isolation.decoders import Decoders
from gateway.telemetry import metrics
from normalization import images
from normalization.headers import BadImage, Limits, check, is_quick, sniff
from normalization.values import Header, Image, Resize, Step

T = TypeVar("T")


class Busy(Exception):
    """Too many pictures wait to be decoded. `limit` is what is full."""

    limit = "pixels"


class Imaging:
    """Runs the pure picture functions in threads.

    At most `max_pixels` are being decoded or encoded at any moment; who comes later waits in order. A picture larger
    than the whole budget runs alone. Callers' pictures are turned away where more than `max_waiting` pixels wait
    already; providers' pictures never are, because they are paid for. With `decoders` the work is done in processes.
    """

    def __init__(
        self,
        *,
        max_pixels: int,
        limits: Limits,
        max_waiting: int | None = None,
        threads: int | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        self._limits = limits
        self._max_pixels = max_pixels
        self._max_waiting = max_waiting
        self._decoders = decoders
        self._prepare = decoders.prepare if decoders else images.prepare
        self._finish = decoders.finish if decoders else images.finish
        self._free = max_pixels
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="imaging")

    async def inspect(self, data: bytes) -> Image:
        """Read a picture's header and check its structure and size. Raises BadImage."""
        if is_quick(data):
            # A change of thread costs more.
            return _inspect(data, self._limits)
        return await self._run(_inspect, data, self._limits)

    async def prepare(self, image: Image) -> Image:
        """The picture as every provider reads it alike: upright, sRGB, without metadata. Raises BadImage, and Busy."""
        header = image.header
        if (
            header.plain
            and header.orientation == 1
            and not header.metadata
            and header.format in ("png", "jpeg", "webp")
        ):
            return image
        pixels = header.width * header.height
        if self._max_waiting is not None and self._waiting and self._queued + pixels > self._max_waiting:
            metrics.SHED.labels(Busy.limit).inc()
            raise Busy
        async with self._budget(pixels):
            return await self._run(self._prepare, image)

    async def finish(self, data: bytes, header: Header, steps: Sequence[Step]) -> tuple[Image, tuple[str, ...]]:
        """Bring a provider's picture to what the caller asked for. Raises BadImage."""
        if images.is_finished(data, header, steps):
            return Image(data=data, header=header), ()
        pixels = header.width * header.height
        pixels += sum(step.size.pixels for step in steps if isinstance(step, Resize))
        async with self._budget(pixels):
            return await self._run(self._finish, data, header, steps)

    def close(self) -> None:
        """Let the threads end; nothing new starts."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._decoders:
            self._decoders.close()

    @property
    def _queued(self) -> int:
        return sum(pixels for pixels, turn in self._waiting if not turn.done())

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(function, *args))

    @asynccontextmanager
    async def _budget(self, pixels: int) -> AsyncIterator[None]:
        pixels = min(pixels, self._max_pixels)
        if self._waiting or pixels > self._free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((pixels, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back(pixels)
                raise
        else:
            self._free -= pixels
        try:
            yield
        finally:
            self._give_back(pixels)

    def _give_back(self, pixels: int) -> None:
        self._free += pixels
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


def _inspect(data: bytes, limits: Limits) -> Image:
    header = sniff(data)
    check(header, limits)
    return Image(data=data, header=header)


__all__ = ["BadImage", "Busy", "Imaging", "Limits"]
