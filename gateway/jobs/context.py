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

# How many signals are kept: a webhook may arrive before anything waits for it.
_REMEMBERED = 16_384


@dataclass(slots=True, eq=False)
class _Signal:
    event: asyncio.Event = field(default_factory=asyncio.Event)
    name: str | None = None


class WebhookSignals:
    """Wakes the attempts of this process when a webhook arrives for them."""

    def __init__(self) -> None:
        self._signals: OrderedDict[str, _Signal] = OrderedDict()

    def notify(self, attempt: str, name: str | None, *, ended: bool = True) -> None:
        """Wake the waiters of this attempt. `name` is the provider's id of its job.

        A webhook for a job that has not `ended` wakes no waiter that knows the id already: it would poll too early.
        """
        signal = self._of(attempt)
        news = signal.name is None and name is not None
        signal.name = signal.name or name
        if ended or news:
            signal.event.set()

    async def sleep(self, attempt: str, seconds: float, clock: Clock) -> None:
        """Wait for this many seconds by `clock`, or until a webhook arrives."""
        signal = self._of(attempt)
        waits = {asyncio.ensure_future(signal.event.wait()), asyncio.ensure_future(clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        signal.event.clear()

    async def wait_for_id(self, attempt: str, seconds: float, clock: Clock) -> str | None:
        """Wait until the provider's id of the job is known, at most `seconds`; None if it is not known by then."""
        until = clock.now() + seconds
        signal = self._of(attempt)
        while signal.name is None and (left := until - clock.now()) > 0:
            await self.sleep(attempt, left, clock)
        return signal.name

    def forget(self, attempt: str) -> None:
        """Drop the signal of an attempt that has ended."""
        self._signals.pop(attempt, None)

    def _of(self, attempt: str) -> _Signal:
        signal = self._signals.setdefault(attempt, _Signal())
        while len(self._signals) > _REMEMBERED and next(iter(self._signals.values())) is not signal:
            self._signals.popitem(last=False)
        return signal


class Recorder:
    """Records the attempts of one job. This base class stores nothing; LedgerRecorder does.

    `leaving` is true once the process is shutting down: work that another process can resume is left as it is.
    """

    leaving = False
    owner = ""
    """The id of the job's API key."""

    async def sending(self, attempt: AttemptRow) -> None:
        """Record that a billable request is about to be sent. An exception stops it."""

    async def departing(self) -> None:
        """Check right before the bytes of a billable request are sent. An exception stops them."""

    async def submitted(self, attempt: str, handle: Handle) -> None:
        """Record that a provider accepted the job. Raises UpstreamJobClaimed if it belongs to another attempt."""

    def is_held(self, attempt: str) -> bool:
        """Whether only this process can receive the attempt's result, and only once."""
        return False

    def received(self, attempt: str) -> None:
        """Record that a copy of the attempt's unprocessed result is stored."""

    def ended(self, attempt: AttemptRow) -> None:
        """Record the end of an attempt, whatever its outcome."""

    def unkept(self, attempt: AttemptRow, images: Sequence[StoredImage]) -> None:
        """Record images that are not all stored yet: until they are, the attempt has not ended."""

    def succeeded(self, attempt: str, handle: Handle) -> None:
        """Record that the provider reported success: the result is paid for and only has to be downloaded."""

    def progressed(self, number: int, share: float) -> None:
        """Record the progress of a call, from 0 to 1."""

    def overdue(self) -> None:
        """Record that the deadline has passed while the job continues: its provider cannot cancel it."""

    def webhook(self, attempt: AttemptRow) -> str | None:
        """The URL to which a provider may send the attempt's webhooks; None if the gateway has no public address."""
        return None

    async def sleep(self, attempt: str, seconds: float, clock: Clock) -> None:
        """Sleep by this clock; a webhook ends the sleep early."""
        await clock.sleep(seconds)

    async def others(self, attempt: AttemptRow) -> frozenset[str]:
        """The ids of the provider's jobs that belong to other attempts."""
        return frozenset()

    async def wait_for_id(self, attempt: str, seconds: float) -> str | None:
        """The provider's id of the job if a webhook reports it within `seconds`, else None."""
        return None


class JobStopped(Exception):
    """The job was cancelled before its request was sent."""


class JobAttemptContext(AttemptContext):
    """Connects one provider call with the recorder of its job."""

    def __init__(self, recorder: Recorder, attempt: AttemptRow) -> None:
        self.webhook = recorder.webhook(attempt)
        self.attempt = attempt
        self.left = False
        """Whether the request may have been sent."""
        self.stopped = False
        """Set to keep the request from being sent."""
        self.handle: Handle | None = None
        """The provider's job, once it has one."""
        self.made = False
        """Whether the provider has reported success."""
        self._journal = recorder
        self._share = 0.0

    @override
    async def sending(self, data: Mapping[str, str]) -> None:
        self._stop_here()
        self.attempt = replace(self.attempt, sent=dict(data))
        await self._journal.sending(self.attempt)
        await self._journal.departing()
        self._stop_here()
        # Connecting comes first, and this process may be paused meanwhile: check once more.
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
"""Returns the webhook URL for a provider's name and an attempt's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRecorded:
    """An attempt that has ended except that its images are not all stored."""

    attempt: AttemptRow
    images: tuple[StoredImage, ...]


class LedgerRecorder(Recorder):
    """Writes a job's attempts to the ledger: a submit before it is sent, an end together with the next write.

    `moved` is called whenever the job's state changes.
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
        """Whether a billable request may have been sent for this job."""
        self.active: dict[str, str] = {}
        """The providers of the running attempts, by the attempts' ids."""
        self.share = 0.0
        self.made: set[str] = set()
        """The ids of running attempts whose provider has reported success."""
        self.pending: list[AttemptRow] = []
        """Ended attempts whose end is not written yet."""
        self.waiting: list[NotRecorded] = []
        """Attempts whose images are not stored yet. In the ledger they are still running."""
        self.came: set[str] = set()
        """The ids of attempts with a stored copy of the provider's result."""
        self.written = False
        """Whether the job's end is in the ledger."""
        self._held: set[str] = set()
        self._ledger = ledger
        self._order = order
        self._signals = signals
        self._address = address
        self._moved = moved
        self._overdue = overdue
        self._clock = clock
        self._shares: dict[int, float] = {}

    def close(self) -> None:
        """Drop the callbacks. Otherwise the job, its recorder and its images reference each other."""
        self._moved = self._overdue = _nothing

    @override
    async def sending(self, attempt: AttemptRow) -> None:
        ended, self.pending = self.pending, []
        # Jobs with an idempotency key and background jobs were written when they were accepted.
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
            # The id is the gateway's own, and no other process can resume it: nothing waits for the write.
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
            # A process that resumes the job has to know: by then the provider may report something else.
            self._ledger.succeeded(attempt, handle)

    @override
    def ended(self, attempt: AttemptRow) -> None:
        self.active.pop(attempt.id, None)
        self._signals.forget(attempt.id)
        self.pending.append(attempt)
        if self.active:
            # Other attempts may run for long: this result must be recorded before they end.
            ended, self.pending = self.pending, []
            self._ledger.attempts_ended(self._order, ended)

    @override
    def progressed(self, number: int, share: float) -> None:
        # Several sources report progress, and not in order.
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
        await self._signals.sleep(attempt, seconds, clock)

    @override
    async def others(self, attempt: AttemptRow) -> frozenset[str]:
        try:
            return await self._ledger.others(attempt)
        except LedgerDown:
            # `submitted` checks again whether a found job belongs to another attempt.
            return frozenset()

    @override
    async def wait_for_id(self, attempt: str, seconds: float) -> str | None:
        until = self._clock.now() + seconds
        while (left := until - self._clock.now()) > 0:
            if (name := await self._signals.wait_for_id(attempt, min(_LOOK_S, left), self._clock)) is not None:
                return name
            # Another process may have received the webhook.
            with contextlib.suppress(LedgerDown):
                if (found := await self._ledger.attempt(attempt)) is not None and found.heard is not None:
                    return found.heard
        return None


def _nothing() -> None:
    pass
