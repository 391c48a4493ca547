"""How much of providers' answers a process holds in memory at once.

Each answer has a limit of its own, and many may come at the same time. What is read beyond a megabyte is held by the
lease of the attempt that it belongs to, until that attempt has used it; when the room is full a reader waits for others
to be done. The one who has held something for longest is never kept waiting, so that somebody always gets on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Answers of less are too many, and too soon gone, to be counted.
FREE_BYTES = 1 << 20


class MemoryBudget:
    """Holds `most` bytes, and what the oldest lease needs beyond."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._held: dict[MemoryLease, int] = {}
        self._freed = asyncio.Event()

    @contextmanager
    def lease(self) -> Iterator[MemoryLease]:
        """Let all that is read from here on, in tasks that are begun here too, be held by one lease; it ends with this
        block."""
        lease = MemoryLease(self)
        token = _LEASE.set(lease)
        try:
            yield lease
        finally:
            _LEASE.reset(token)
            lease.release()

    async def take(self, lease: MemoryLease, size: int) -> None:
        """Hold so many bytes more for a lease, once there is room for them."""
        while self.used + size > self.most and self._held and next(iter(self._held)) is not lease:
            await self._freed.wait()
        self._held[lease] = self._held.get(lease, 0) + size
        self.used += size

    def give(self, lease: MemoryLease, size: int | None = None) -> None:
        """Give back so many of a lease's bytes, or all."""
        held = self._held.pop(lease, 0)
        left = 0 if size is None else max(0, held - size)
        self.used -= held - left
        if left:
            self._held = {lease: left, **self._held}
        self._freed.set()
        self._freed = asyncio.Event()


class MemoryLease:
    """What one attempt holds of a room."""

    def __init__(self, room: MemoryBudget) -> None:
        self._room = room

    async def take(self, size: int) -> None:
        """Hold so many bytes more, once there is room for them."""
        await self._room.take(self, size)

    def give(self, size: int) -> None:
        """Give back so many bytes."""
        self._room.give(self, size)

    def release(self) -> None:
        """Give back all: what was read has been used, or is dropped."""
        self._room.give(self)


_LEASE: ContextVar[MemoryLease | None] = ContextVar("lease", default=None)


class Reading:
    """What the reading of one answer holds of the room of its attempt; of none where it belongs to no attempt."""

    def __init__(self) -> None:
        self._lease = _LEASE.get()
        self._free = FREE_BYTES
        self._taken = 0

    async def take(self, size: int) -> None:
        """Make room for the next piece."""
        if self._lease is None:
            return
        beyond = max(0, size - self._free)
        self._free = max(0, self._free - size)
        if beyond:
            await self._lease.take(beyond)
            self._taken += beyond

    def drop(self) -> None:
        """Give back what this reading took: its bytes are dropped."""
        if self._lease is not None and self._taken:
            self._lease.give(self._taken)
            self._taken = 0
