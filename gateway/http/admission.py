"""Admission control: limits the bytes of request bodies and answers in memory, and running jobs.

Excess requests are rejected, except for answers that are paid for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager

from gateway.telemetry import metrics
from providers.fairness import SharedCapacity, Shares


class ServerOverloaded(Exception):
    """The server has no capacity for another request. `limit` names what is exhausted.

    `kept` says that the remaining capacity is reserved for other keys: this one has used its share.
    """

    def __init__(self, limit: str, *, kept: bool = False) -> None:
        super().__init__(limit)
        self.limit = limit
        self.kept = kept


class Reservation:
    """The memory that one request holds, from its body's first byte on."""

    def __init__(self, load: AdmissionControl, key: str) -> None:
        self._load = load
        self._key = key
        self._bytes = 0
        self._begins = False

    def begin(self) -> None:
        """Count the call as a job from here on, until it is one. Raises ServerOverloaded where no more are begun."""
        self._load.begin(self._key)
        self._begins = True

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A body's chunks. Raises ServerOverloaded before the first one that there is no room for."""
        async for chunk in chunks:
            self._load.take(len(chunk), self._key, self._bytes)
            self._bytes += len(chunk)
            yield chunk

    def add(self, size: int) -> None:
        """Count bytes that were fetched for the client. Raises ServerOverloaded where there is no room for them."""
        self._load.take(size, self._key, self._bytes)
        self._bytes += size

    def detach(self) -> Callable[[], None]:
        """Let go of the bytes without giving them back: whoever has them now calls what this returns, once."""
        size, self._bytes = self._bytes, 0
        if self._begins:
            self._begins = False
            self._load.begun(self._key)
        return lambda: self._load.give_back(size, self._key)

    def close(self) -> None:
        """Give back what was not passed on."""
        self.detach()()


class AdmissionControl:
    """The gate before the bodies.

    At most `max_bytes` of bodies and answers are here, and calls come in while fewer than `max_jobs` jobs go on in this
    process. A body that announces more than there is room for is not begun. What was only announced takes no room, or
    a few who announce much and send nothing would keep everybody out. A body larger than all the room may come alone.

    Both are shared out among the keys as `room_for` says: one may have everything that no other one wants, and a key
    that has nothing here finds an eighth more. `jobs` tells how many jobs of each key go on, `clock` tells seconds.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_jobs: int,
        jobs: Callable[[], Mapping[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._held: Counter[str] = Counter()
        self._beginning: Counter[str] = Counter()
        self._shares = {"bytes": Shares(max_bytes, clock), "jobs": Shares(max_jobs, clock)}

    @property
    def held(self) -> int:
        """Bytes that are here."""
        return self._held.total()

    @contextmanager
    def admit(self, announced: int | None, key: str = "") -> Iterator[Reservation]:
        """Let a key's call in whose body announces so many bytes. Raises ServerOverloaded."""
        self._check("jobs", 1, key, self._going())
        self._check("bytes", announced or 0, key, self._held)
        reservation = Reservation(self, key)
        try:
            yield reservation
        finally:
            reservation.close()

    def begin(self, key: str) -> None:
        """Count one more job of a key's that is about to begin. Raises ServerOverloaded where no more are begun."""
        self._check("jobs", 1, key, self._going())
        self._beginning[key] += 1

    def answer(self, size: int, key: str) -> Callable[[], None]:
        """Count an answer that can be asked for again, before it is read; what this returns lets go of it, once.

        Raises ServerOverloaded where there is no room for it.
        """
        if size:
            self.take(size, key, 0)
        return _once(lambda: self.give_back(size, key))

    def paid(self, size: int, key: str) -> Callable[[], None]:
        """Count an answer that is here already, and is not turned away: others are for it. Returns what lets go."""
        self._held[key] += size
        metrics.HELD.inc(size)
        return _once(lambda: self.give_back(size, key))

    def begun(self, key: str) -> None:
        """What was about to begin is a job now, or will be none."""
        _less(self._beginning, key, 1)

    def take(self, size: int, key: str, own: int) -> None:
        """Count bytes that came to the `own` ones of a call. Raises ServerOverloaded, and counts none, without room."""
        self._check("bytes", size, key, self._held, own)
        self._held[key] += size
        metrics.HELD.inc(size)

    def give_back(self, size: int, key: str) -> None:
        """Bytes that are here no more."""
        _less(self._held, key, size)
        metrics.HELD.dec(size)

    def _going(self) -> Mapping[str, int]:
        return Counter(self._jobs()) + self._beginning

    def _check(self, limit: str, size: int, key: str, held: Mapping[str, int], own: int = 0) -> None:
        room = self._shares[limit].ask(size, key, held, own)
        if room is SharedCapacity.KEPT:
            metrics.REFUSED.labels("share").inc()
            raise ServerOverloaded(limit, kept=True)
        if room is SharedCapacity.FULL:
            metrics.SHED.labels(limit).inc()
            raise ServerOverloaded(limit)


def _less(counts: Counter[str], key: str, size: int) -> None:
    counts[key] -= size
    if counts[key] <= 0:
        del counts[key]


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """Something that is called once, however often it is asked for."""
    left = [call]
    return lambda: left.pop()() if left else None
