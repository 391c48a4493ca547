"""What a job's work tells whoever keeps book of it, and what it hears from outside while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from gateway.ledger.records import AttemptRow, Picture
from providers.base import Handle, Link
from providers.clock import CLOCK, Clock
from providers.kit.departure import before_departure


class Journal:
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

    def unkept(self, attempt: AttemptRow, pictures: Sequence[Picture]) -> None:
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


class Stopped(Exception):
    """The job was cancelled before its request left."""


class CallLink(Link):
    """Connects one upstream call with the book of its job."""

    def __init__(self, journal: Journal, attempt: AttemptRow) -> None:
        self.webhook = journal.webhook(attempt)
        self.attempt = attempt
        self.left = False
        """Whether the request may have left."""
        self.stopped = False
        """Set to keep it from leaving."""
        self.handle: Handle | None = None
        """The provider's job, once it has one."""
        self.made = False
        """Whether the provider has said that the job has succeeded."""
        self._journal = journal
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
            raise Stopped

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
