"""From fal's answer to the pictures that it tells of."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from providers.base import Outcome, Undecodable
from providers.clock import CLOCK, Clock
from providers.download import download
from providers.fal_answer import NAME, cost, pictures
from providers.fal_watch import Result
from providers.guard import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Fetches what a result names, `most` bytes of it together, with a client that never carries a key."""

    downloads: httpx.AsyncClient
    guard: Guard
    most: int
    clock: Clock = CLOCK

    async def outcome(self, result: Result, usd: str, deadline: float) -> Outcome:
        """Return a result's pictures, with the bill at `usd` dollars a unit.

        `deadline` is a reading of the clock. Raises Gone where an address is not good any more, Expired,
        and Undecodable, with the bill.
        """
        bill = cost(result.headers, usd)
        try:
            fetched = await self._fetched(result, deadline)
        except Undecodable as exc:
            exc.cost = bill
            raise
        return Outcome(pictures=fetched, seconds=result.run_s, cost=bill)

    async def _fetched(self, result: Result, deadline: float) -> tuple[bytes, ...]:
        found = pictures(result.answer)
        if not found:
            raise Undecodable(f"{NAME}: the result has no picture")
        got: list[bytes] = []
        left = self.most
        for item in found:
            if isinstance(item, str):
                item = await download(
                    self.downloads,
                    item,
                    guard=self.guard,
                    cap=left,
                    deadline=deadline,
                    fresh=True,
                    clock=self.clock,
                )
            got.append(item)
            left -= len(item)
            if left < 0:
                raise Undecodable(f"{NAME}: the result is larger than {self.most} bytes")
        return tuple(got)
