"""What a prediction that has ended gave: its pictures, its seconds, its bill."""

from __future__ import annotations

import httpx

from providers.base import ALONE, Handle, Link, Outcome, Undecodable
from providers.clock import CLOCK, Clock
from providers.http.bodies import Json
from providers.http.client import Unanswered
from providers.http.ssrf import Guard
from providers.kit.polling import Again
from providers.kit.results import LEAST_BYTES_PER_S, Collector, Named, from_strangers
from providers.replicate.api import Api, Missing
from providers.replicate.responses import ENDED, NAME, cost_of, failure, pictures, predict_time


class Results:
    """Fetches results: from the API itself with its key, from elsewhere by `downloads` through the `guard`.

    A picture has `cap` bytes at most, and `timeout_s` seconds a try.
    """

    def __init__(
        self,
        api: Api,
        downloads: httpx.AsyncClient,
        *,
        guard: Guard,
        cap: int,
        timeout_s: float,
        least_bytes_per_s: int = LEAST_BYTES_PER_S,
        clock: Clock = CLOCK,
    ) -> None:
        self._api = api
        elsewhere = from_strangers(downloads, guard, least_bytes_per_s=least_bytes_per_s, clock=clock)

        async def fetch(address: str, most: int, deadline: float) -> bytes:
            return await (api.result if api.has(address) else elsewhere)(address, most, deadline)

        self._collector = Collector(NAME, fetch, most=cap, try_s=timeout_s, clock=clock)

    async def of(self, handle: Handle, prediction: dict[str, Json], deadline: float, link: Link = ALONE) -> Outcome:
        """Return what an ended prediction gave; raises what it failed with, Undecodable, and Unfetched.

        `deadline` is a reading of the clock.
        """
        prediction = await self.whole(handle, prediction)
        if prediction["status"] != "succeeded":
            raise failure(prediction, bill(handle, prediction))
        items = pictures(prediction.get("output"))
        if not items:
            removed = " any more" if prediction.get("data_removed") else ""
            raise Undecodable(f"{NAME}: the job succeeded, and has no picture{removed}")
        link.succeeded()

        async def again() -> list[Named]:
            return pictures((await self._again(handle) or {}).get("output"))

        cost = bill(handle, prediction)
        made = await self._collector.collect(items, deadline, again, cost=cost)
        return Outcome(pictures=made, seconds=predict_time(prediction), cost=cost)

    async def whole(self, handle: Handle, prediction: dict[str, Json]) -> dict[str, Json]:
        """Return an ended prediction with its bill: a state that was written in two steps is whole the second time."""
        told = prediction["status"] == "aborted" or predict_time(prediction) is not None
        if told and (prediction["status"] != "succeeded" or pictures(prediction.get("output"))):
            return prediction
        return await self._again(handle) or prediction

    async def _again(self, handle: Handle) -> dict[str, Json] | None:
        try:
            prediction = await self._api.prediction(handle.id)
        except (Unanswered, Again, Missing):
            return None
        return prediction if prediction.get("status") in ENDED else None


def bill(handle: Handle, prediction: dict[str, Json]) -> int | None:
    """Return what a prediction costs in micro-dollars; None where its price was not told with the job."""
    return cost_of(prediction, handle.data.get("usd_per_second", ""))
