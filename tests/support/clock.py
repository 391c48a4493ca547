"""A clock for tests, on which a wait takes no time."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from providers.clock import Clock


class Still(Clock):
    """A clock that stands at zero: what is sent of a deadline is the same each time."""

    @override
    def now(self) -> float:
        return 0.0


class Faster(Clock):
    """The event loop's clock, going so many times faster: for whole gateways, where several jobs wait at a time.

    Timeouts of a single request are not by this clock.
    """

    def __init__(self, times: float) -> None:
        self._times = times

    @override
    def now(self) -> float:
        return super().now() * self._times

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._times)

    @override
    def timeout_at(self, deadline: float) -> asyncio.Timeout:
        return asyncio.timeout((deadline - self.now()) / self._times)


class Skipping(Clock):
    """The event loop's clock, on which every sleep is skipped: the time that it would have taken has passed at once.

    What really takes time, such as an answer over a socket, takes it here too. `slept` are the waits in their order.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        self.slept: list[float] = []

    @override
    def now(self) -> float:
        return super().now() + self.skipped

    @override
    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.skipped += max(0.0, seconds)
        await asyncio.sleep(0)

    def after(self, seconds: float) -> float:
        """Return the reading at which so many seconds have passed from now."""
        return self.now() + seconds
