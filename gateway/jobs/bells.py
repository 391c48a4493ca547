"""Webhooks that have come, and whoever waits for one: a provider that calls is looked at at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from providers.clock import Clock

# One that comes before anybody waits is remembered, for a while.
_REMEMBERED = 16_384


@dataclass(slots=True, eq=False)
class _Bell:
    event: asyncio.Event = field(default_factory=asyncio.Event)
    name: str | None = None


class Bells:
    """One bell for each attempt of this process."""

    def __init__(self) -> None:
        self._bells: OrderedDict[str, _Bell] = OrderedDict()

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

    def _of(self, attempt: str) -> _Bell:
        bell = self._bells.setdefault(attempt, _Bell())
        while len(self._bells) > _REMEMBERED and next(iter(self._bells.values())) is not bell:
            self._bells.popitem(last=False)
        return bell
