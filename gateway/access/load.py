"""How much is taken on at once: the bytes of callers' bodies and of answers, and jobs. What would be too much is turned
away, but for what is paid."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from gateway.telemetry import metrics


class Overloaded(Exception):
    """There is no room for one more call. `limit` is the setting that says so."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class Hold:
    """What one call holds, from its body's first byte on."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._bytes = 0

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A body's chunks. Raises Overloaded before the first one that there is no room for."""
        async for chunk in chunks:
            self._load.take(len(chunk), self._bytes)
            self._bytes += len(chunk)
            yield chunk

    def add(self, size: int) -> None:
        """Count bytes that were fetched at the caller's word. Raises Overloaded where there is no room for them."""
        self._load.take(size, self._bytes)
        self._bytes += size

    def pass_on(self) -> Callable[[], None]:
        """Let go of the bytes without giving them back: whoever has them now calls what this returns, once."""
        size, self._bytes = self._bytes, 0
        return lambda: self._load.give_back(size)

    def close(self) -> None:
        """Give back what was not passed on."""
        self.pass_on()()


class Load:
    """The gate before the bodies.

    At most `max_bytes` of bodies and answers are here, and calls come in while fewer than `max_jobs` jobs go on in this
    process. A body that announces more than there is room for is not begun. What was only announced takes no room, or
    a few who announce much and send nothing would keep everybody out. A body larger than all the room may come alone.
    """

    def __init__(self, *, max_bytes: int, max_jobs: int, jobs: Callable[[], int]) -> None:
        self._max_bytes = max_bytes
        self._max_jobs = max_jobs
        self._jobs = jobs
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that are here."""
        return self._held

    @contextmanager
    def admit(self, announced: int | None) -> Iterator[Hold]:
        """Let a call in whose body announces so many bytes. Raises Overloaded."""
        self.check_jobs()
        self._check_bytes(announced or 0, 0)
        hold = Hold(self)
        try:
            yield hold
        finally:
            hold.close()

    def answer(self, size: int) -> Callable[[], None]:
        """Count an answer that can be asked for again, before it is read; what this returns lets go of it, once.

        Raises Overloaded where there is no room for it.
        """
        if size:
            self.take(size, 0)
        return _once(lambda: self.give_back(size))

    def paid(self, size: int) -> Callable[[], None]:
        """Count an answer that is here already, and is not turned away: others are for it. Returns what lets go."""
        self._held += size
        metrics.HELD.inc(size)
        return _once(lambda: self.give_back(size))

    def check_jobs(self) -> None:
        """Raise Overloaded where no more jobs are begun."""
        if self._jobs() >= self._max_jobs:
            raise _shed("jobs")

    def take(self, size: int, own: int) -> None:
        """Count bytes that came to the `own` ones of a call. Raises Overloaded, and counts none, without room."""
        self._check_bytes(size, own)
        self._held += size
        metrics.HELD.inc(size)

    def give_back(self, size: int) -> None:
        """Bytes that are here no more."""
        self._held -= size
        metrics.HELD.dec(size)

    def _check_bytes(self, size: int, own: int) -> None:
        if self._held > own and self._held + size > self._max_bytes:
            raise _shed("bytes")


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """Something that is called once, however often it is asked for."""
    left = [call]
    return lambda: left.pop()() if left else None


def _shed(limit: str) -> Overloaded:
    metrics.SHED.labels(limit).inc()
    return Overloaded(limit)
