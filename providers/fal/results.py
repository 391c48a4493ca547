"""From fal's answer to the pictures that it tells of."""

from __future__ import annotations

from dataclasses import dataclass

from providers.base import Outcome, Undecodable
from providers.fal.responses import NAME, cost, pictures
from providers.fal.watch import Result
from providers.kit.results import Ask, Collector, Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Fetches what a result names."""

    collector: Collector

    async def outcome(self, result: Result, usd: str, deadline: float, again: Ask | None = None) -> Outcome:
        """Return a result's pictures, with the bill at `usd` dollars a unit. `again` asks what the result names now.

        `deadline` is a reading of the clock. Raises Unfetched, and Undecodable, with the bill.
        """
        bill = cost(result.headers, usd)
        found: list[Named] = list(pictures(result.answer))
        if not found:
            raise Undecodable(f"{NAME}: the result has no picture", cost=bill)
        fetched = await self.collector.collect(found, deadline, again, cost=bill)
        return Outcome(pictures=fetched, seconds=result.run_s, cost=bill)
