"""The book of one job, kept in the ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from typing_extensions import override

from gateway.jobs.bells import Bells
from gateway.jobs.journal import Journal
from gateway.jobs.ledger import Ledger, LedgerDown
from gateway.jobs.records import AttemptRow, Order
from providers.base import Handle
from providers.clock import CLOCK, Clock

_LOOK_S = 1.0

Address = Callable[[str, str], "str | None"]
"""Where a provider may report of an attempt: from its name and the attempt's id."""


class Book(Journal):
    """Writes a job's attempts into the ledger: what is about to be bought at once, what has ended with the next write.

    `moved` is called whenever there is something new to tell of the job.
    """

    def __init__(
        self,
        ledger: Ledger,
        order: Order,
        *,
        bells: Bells,
        address: Address,
        moved: Callable[[], None],
        overdue: Callable[[], None],
        clock: Clock = CLOCK,
    ) -> None:
        self.sent = False
        """Whether anything may have been bought for this job."""
        self.going: dict[str, str] = {}
        """The providers of the attempts that are under way, by the attempts' ids."""
        self.share = 0.0
        self.made: set[str] = set()
        """Those of them whose provider says that they have succeeded."""
        self.pending: list[AttemptRow] = []
        """Attempts that have ended, and of whose end nothing is written yet."""
        self._ledger = ledger
        self._order = order
        self._bells = bells
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
        self.going[attempt.id] = attempt.provider
        self._moved()

    @override
    async def submitted(self, attempt: str, handle: Handle) -> None:
        self.sent = True
        self.going[attempt] = handle.provider
        if handle.held:
            # Its name is ours, and nobody but this process can go on with it: there is nothing to wait for.
            self._ledger.held(attempt, handle, time.time())
        else:
            await self._ledger.submitted(attempt, handle, time.time())

    @override
    def succeeded(self, attempt: str, handle: Handle) -> None:
        self.made.add(attempt)
        if not handle.held:
            # Whoever takes the job up has to know: it may be told something else by then.
            self._ledger.succeeded(attempt, handle)

    @override
    def ended(self, attempt: AttemptRow) -> None:
        self.going.pop(attempt.id, None)
        self._bells.forget(attempt.id)
        self.pending.append(attempt)
        if self.going:
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
