"""Time as adapters and the failover loop see it: a value that is handed in, so that a test need not wait."""

from __future__ import annotations

import asyncio


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


CLOCK = Clock()
"""The clock that everything uses unless it is given another one."""
