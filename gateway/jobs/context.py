"""The context of an attempt: the records it writes to the ledger, and the webhooks and cancellations that reach it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from gateway.ledger.records import AttemptRow, JobSpec, StoredImage
from gateway.ledger.store import Ledger, LedgerDown
from providers.base import AttemptContext, Handle
from providers.clock import CLOCK, Clock
from providers.http.send_hook import before_departure

# One that comes before anybody waits is remembered, for a while.
_REMEMBERED = 16_384


@dataclass(slots=True, eq=False)
class _Signal:
    event: asyncio.Event = field(default_factory=asyncio.Event)
    name: str | None = None


class WebhookSignals:
    """One bell for each attempt of this process."""

    def __init__(self) -> None:
        self._bells: OrderedDict[str, _Signal] = OrderedDict()

    def ring(self, attempt: str, name: str | None, *, ended: bool = True) -> None:
        """Wake whoever waits for this attempt. `name` is the provider's id of its job.

        What does not say that the job has `ended` wakes nobody who knows the name: the question would come too early.
        """
        bell = self._of(attempt)
        news = bell.name is None and name is not None
        bell.name = bell.name or name
        if ended or news:
            bell.event.set()

    async def sleep(self, attempt: str, seconds: float, clock: Clock) -> None:
        """Wait so long by this clock, or until it rings."""
        bell = self._of(attempt)
        waits = {asyncio.ensure_future(bell.event.wait()), asyncio.ensure_future(clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        bell.event.clear()

    async def heard(self, attempt: str, seconds: float, clock: Clock) -> str | None:
        """Wait until the provider's id of the job is known; None where that does not come in time."""
        until = clock.now() + seconds
        bell = self._of(attempt)
        while bell.name is None and (left := until - clock.now()) > 0:
            await self.sleep(attempt, left, clock)
        return bell.name

    def forget(self, attempt: str) -> None:
        """Its job has ended."""
        self._bells.pop(attempt, None)

    def _of(self, attempt: str) -> _Signal:
        bell = self._bells.setdefault(attempt, _Signal())
        while len(self._bells) > _REMEMBERED and next(iter(self._bells.values())) is not bell:
            self._bells.popitem(last=False)
        return bell


class Recorder:
    """The book of one job. This one keeps nothing: the ledger's does (`gateway/jobs/manager.py`).

    `leaving` is true once the process is about to end: work that another one can go on with is left as it is.
    """

    leaving = False
    owner = ""
    """The API key that the job is for."""

    async def sending(self, attempt: AttemptRow) -> None:
        """A request is about to leave that may buy something. What this raises stops it."""

    async def departing(self) -> None:
        """The bytes of a request that may buy something are about to leave. What this raises stops them."""

    async def submitted(self, attempt: str, handle: Handle) -> None:
        """A provider has taken the job. Raises Claimed where it is known to be another attempt's."""

    def is_held(self, attempt: str) -> bool:
        """Whether only this process can be given what the attempt gives, and once only."""
        return False

    def received(self, attempt: str) -> None:
        """What an attempt gave is kept as it came."""

    def ended(self, attempt: AttemptRow) -> None:
        """An attempt has ended, in one way or another."""

    def unkept(self, attempt: AttemptRow, images: Sequence[StoredImage]) -> None:
        """An attempt gave these pictures, and not all of them are stored: until they are it has not ended."""

    def succeeded(self, attempt: str, handle: Handle) -> None:
        """The provider says that the job has succeeded: it is paid for, and only to be fetched."""

    def progressed(self, number: int, share: float) -> None:
        """So much of a call is done, from 0 to 1."""

    def overdue(self) -> None:
        """The deadline has passed, and the job goes on: its provider cannot cancel it."""

    def webhook(self, attempt: AttemptRow) -> str | None:
        """The address at which a provider may report of an attempt; None where we cannot be reached."""
        return None

    async def sleep(self, attempt: str, seconds: float, clock: Clock) -> None:
        """Wait by this clock; a webhook cuts it short."""
        await clock.sleep(seconds)

    async def others(self, attempt: AttemptRow) -> frozenset[str]:
        """The ids of the jobs at an attempt's provider that are known to be other attempts'."""
        return frozenset()

    async def heard(self, attempt: str, seconds: float) -> str | None:
        """The provider's id of a job, where a webhook tells it within so many seconds."""
        return None


class JobStopped(Exception):
    """The job was cancelled before its request left."""


class JobAttemptContext(AttemptContext):
    """Connects one upstream call with the book of its job."""

    def __init__(self, recorder: Recorder, attempt: AttemptRow) -> None:
        self.webhook = recorder.webhook(attempt)
        self.attempt = attempt
        self.left = False
        """Whether the request may have left."""
        self.stopped = False
        """Set to keep it from leaving."""
        self.handle: Handle | None = None
        """The provider's job, once it has one."""
        self.made = False
        """Whether the provider has said that the job has succeeded."""
        self._journal = recorder
        self._share = 0.0

    @override
    async def sending(self, data: Mapping[str, str]) -> None:
        self._stop_here()
        self.attempt = replace(self.attempt, sent=dict(data))
        await self._journal.sending(self.attempt)
        await self._journal.departing()
        self._stop_here()
        # There is a connection to be made first, and this process may be paused over it.
        before_departure(self._journal.departing)
        self.left = True

    def _stop_here(self) -> None:
        if self.stopped:
            raise JobStopped

    @override
    def succeeded(self) -> None:
        if not self.made and self.handle is not None:
            self.made = True
            self._journal.succeeded(self.attempt.id, self.handle)

    @override
    def progress(self, share: float) -> None:
        share = min(1.0, max(0.0, share))
        if share > self._share:
            self._share = share
            self._journal.progressed(self.attempt.number, share)

    @override
    async def others(self) -> frozenset[str]:
        return await self._journal.others(self.attempt)

    @override
    async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
        await self._journal.sleep(self.attempt.id, seconds, clock)


_LOOK_S = 1.0

Address = Callable[[str, str], "str | None"]
"""Where a provider may report of an attempt: from its name and the attempt's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRecorded:
    """An attempt that is over but for the storing of its pictures."""

    attempt: AttemptRow
    images: tuple[StoredImage, ...]


class LedgerRecorder(Recorder):
    """Writes a job's attempts into the ledger: what is about to be bought at once, what has ended with the next write.

    `moved` is called whenever there is something new to tell of the job.
    """

    def __init__(
        self,
        ledger: Ledger,
        order: JobSpec,
        *,
        signals: WebhookSignals,
        address: Address,
        moved: Callable[[], None],
        overdue: Callable[[], None],
        clock: Clock = CLOCK,
    ) -> None:
        self.owner = order.key
        self.sent = False
        """Whether anything may have been bought for this job."""
        self.active: dict[str, str] = {}
        """The providers of the attempts that are under way, by the attempts' ids."""
        self.share = 0.0
        self.made: set[str] = set()
        """Those of them whose provider says that they have succeeded."""
        self.pending: list[AttemptRow] = []
        """Attempts that have ended, and of whose end nothing is written yet."""
        self.waiting: list[NotRecorded] = []
        """Attempts whose pictures the store has not taken yet. In the ledger they go on."""
        self.came: set[str] = set()
        """The ids of attempts of which there is a copy of what the provider gave."""
        self.written = False
        """Whether the job's end is in the ledger."""
        self._held: set[str] = set()
        self._ledger = ledger
        self._order = order
        self._bells = signals
        self._address = address
        self._moved = moved
        self._overdue = overdue
        self._clock = clock
        self._shares: dict[int, float] = {}

    def close(self) -> None:
        """Tell nobody of anything any more. Without this the job, its book and its pictures hold each other."""
        self._moved = self._overdue = _nothing

    @override
    async def sending(self, attempt: AttemptRow) -> None:
        ended, self.pending = self.pending, []
        # Whoever has a key, or does not wait, was written down as the job was taken.
        accepted = self._order.idempotency_key is not None or self._order.mode == "background"
        try:
            await self._ledger.sending(self._order, attempt, ended, first=not (self.sent or accepted))
        except BaseException:
            self.pending = [*ended, *self.pending]
            raise
        self.sent = True
        self.active[attempt.id] = attempt.provider
        self._moved()

    @override
    async def departing(self) -> None:
        await self._ledger.confirm_lease(self._order)

    @override
    async def submitted(self, attempt: str, handle: Handle) -> None:
        self.sent = True
        self.active[attempt] = handle.provider
        if handle.held:
            self._held.add(attempt)
            # Its name is ours, and nobody but this process can go on with it: there is nothing to wait for.
            self._ledger.held(attempt, handle, time.time())
        else:
            await self._ledger.submitted(attempt, handle, time.time())

    @override
    def is_held(self, attempt: str) -> bool:
        return attempt in self._held

    @override
    def received(self, attempt: str) -> None:
        self.came.add(attempt)

    @override
    def unkept(self, attempt: AttemptRow, images: Sequence[StoredImage]) -> None:
        self.waiting.append(NotRecorded(attempt=attempt, images=tuple(images)))

    @override
    def succeeded(self, attempt: str, handle: Handle) -> None:
        self.made.add(attempt)
        if not handle.held:
            # Whoever takes the job up has to know: it may be told something else by then.
            self._ledger.succeeded(attempt, handle)

    @override
    def ended(self, attempt: AttemptRow) -> None:
        self.active.pop(attempt.id, None)
        self._bells.forget(attempt.id)
        self.pending.append(attempt)
        if self.active:
            # Others go on, perhaps for long: what has been made must not be forgotten meanwhile.
            ended, self.pending = self.pending, []
            self._ledger.attempts_ended(self._order, ended)

    @override
    def progressed(self, number: int, share: float) -> None:
        # Several tell of it, and not in order.
        self._shares[number] = max(share, self._shares.get(number, 0.0))
        self.share = sum(self._shares.values()) / max(self._order.wanted, len(self._shares))
        self._moved()

    @override
    def overdue(self) -> None:
        self._overdue()

    @override
    def webhook(self, attempt: AttemptRow) -> str | None:
        return self._address(attempt.provider, attempt.id)

    @override
    async def sleep(self, attempt: str, seconds: float, clock: Clock) -> None:
        await self._bells.sleep(attempt, seconds, clock)

    @override
    async def others(self, attempt: AttemptRow) -> frozenset[str]:
        try:
            return await self._ledger.others(attempt)
        except LedgerDown:
            # Whether what is found is another's is looked at once more when that is written down.
            return frozenset()

    @override
    async def heard(self, attempt: str, seconds: float) -> str | None:
        until = self._clock.now() + seconds
        while (left := until - self._clock.now()) > 0:
            if (name := await self._bells.heard(attempt, min(_LOOK_S, left), self._clock)) is not None:
                return name
            # The webhook may have come to another process.
            with contextlib.suppress(LedgerDown):
                if (found := await self._ledger.attempt(attempt)) is not None and found.heard is not None:
                    return found.heard
        return None


def _nothing() -> None:
    pass
