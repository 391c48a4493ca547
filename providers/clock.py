"""Time as adapters and the failover loop see it: a value that is handed in, so that a test need not wait."""

from __future__ import annotations

import asyncio
import random

from typing_extensions import override

# Seconds: the scale of the waits after failures, and their longest.
_JITTER_S = 0.25
_JITTER_LONGEST_S = 8.0


class Clock:
    """The event loop's clock. It counts seconds, from no particular moment, and never goes back."""

    def now(self) -> float:
        """Return the time in seconds. Deadlines are readings of this clock."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)

    def timeout_at(self, deadline: float) -> asyncio.Timeout:
        """Return a context manager that raises TimeoutError at a reading of this clock, as asyncio's own does."""
        return asyncio.timeout(deadline - self.now())


class SkippingClock(Clock):
    """A clock for tests on which every wait is skipped: the time that it would have taken passes at once."""

    def __init__(self) -> None:
        self._skipped = 0.0

    @override
    def now(self) -> float:
        return super().now() + self._skipped

    @override
    async def sleep(self, seconds: float) -> None:
        self._skipped += max(0.0, seconds)
        # A real moment too: a simulation that works in the background makes no progress otherwise.
        await asyncio.sleep(0.002)


CLOCK = Clock()
"""The clock that everything uses unless it is given another one."""


def jitter(failures: int) -> float:
    """Return a random wait in seconds after so many failures in a row before this one: "full jitter", at most 8 s."""
    return random.uniform(0, min(_JITTER_LONGEST_S, _JITTER_S * 2 ** min(failures, 8)))  # noqa: S311 - not a secret
