"""The book of one job, kept in the ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from typing_extensions import override

from gateway.jobs.bells import Bells
from gateway.jobs.context import Journal
from gateway.ledger.records import AttemptRow, Order, Picture
from gateway.ledger.store import Ledger, LedgerDown
from providers.base import Handle
from providers.clock import CLOCK, Clock

_LOOK_S = 1.0

Address = Callable[[str, str], "str | None"]
"""Where a provider may report of an attempt: from its name and the attempt's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unkept:
    """An attempt that is over but for the storing of its pictures."""

    attempt: AttemptRow
    pictures: tuple[Picture, ...]


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
        self.owner = order.key
        self.sent = False
        """Whether anything may have been bought for this job."""
        self.going: dict[str, str] = {}
        """The providers of the attempts that are under way, by the attempts' ids."""
        self.share = 0.0
        self.made: set[str] = set()
        """Those of them whose provider says that they have succeeded."""
        self.pending: list[AttemptRow] = []
        """Attempts that have ended, and of whose end nothing is written yet."""
        self.waiting: list[Unkept] = []
        """Attempts whose pictures the store has not taken yet. In the ledger they go on."""
        self.came: set[str] = set()
        """The ids of attempts of which there is a copy of what the provider gave."""
        self.written = False
        """Whether the job's end is in the ledger."""
        self._held: set[str] = set()
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
    async def departing(self) -> None:
        await self._ledger.assure(self._order)

    @override
    async def submitted(self, attempt: str, handle: Handle) -> None:
        self.sent = True
        self.going[attempt] = handle.provider
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
    def unkept(self, attempt: AttemptRow, pictures: Sequence[Picture]) -> None:
        self.waiting.append(Unkept(attempt=attempt, pictures=tuple(pictures)))

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
