"""What a prediction that has ended gave: its pictures, its seconds, its bill."""

from __future__ import annotations

import httpx

from providers.base import Handle, Outcome, Undecodable
from providers.clock import CLOCK, Clock
from providers.download import Gone, download
from providers.guard import Guard
from providers.http import Unanswered
from providers.polling import Again
from providers.replicate_answer import ENDED, NAME, cost_of, failure, pictures, predict_time
from providers.replicate_api import Api, Missing
from providers.wire import Json

# What a finished job is given beyond the deadline to hand over its result: it is paid for.
_GRACE_S = 15.0


class Results:
    """Fetches results: from the API itself with its key, from elsewhere by `downloads` through the `guard`.

    A picture has `cap` bytes at most. All pictures of a job have `timeout_s` seconds to come.
    """

    def __init__(
        self,
        api: Api,
        downloads: httpx.AsyncClient,
        *,
        guard: Guard,
        cap: int,
        timeout_s: float,
        clock: Clock = CLOCK,
    ) -> None:
        self._clock = clock
        self._api = api
        self._downloads = downloads
        self._guard = guard
        self._cap = cap
        self._timeout_s = timeout_s

    async def of(self, handle: Handle, prediction: dict[str, Json], deadline: float) -> Outcome:
        """Return what an ended prediction gave; raises what it failed with. `deadline` is a reading of the clock."""
        prediction = await self.whole(handle, prediction)
        if prediction["status"] != "succeeded":
            raise failure(prediction, bill(handle, prediction))
        now = self._clock.now()
        deadline = min(max(deadline, now + _GRACE_S), now + self._timeout_s)
        try:
            made = await self._fetched(prediction, deadline)
        except Gone:
            # Addresses run out; the job itself names fresh ones.
            prediction = await self._again(handle) or prediction
            try:
                made = await self._fetched(prediction, deadline)
            except Gone as exc:
                raise Undecodable(f"{NAME}: the result is gone ({exc})") from exc
        return Outcome(pictures=made, seconds=predict_time(prediction), cost=bill(handle, prediction))

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

    async def _fetched(self, prediction: dict[str, Json], deadline: float) -> tuple[bytes, ...]:
        items = pictures(prediction.get("output"))
        if not items:
            removed = " any more" if prediction.get("data_removed") else ""
            raise Undecodable(f"{NAME}: the job succeeded, and has no picture{removed}")
        return tuple([await self._picture(item, deadline) for item in items])

    async def _picture(self, item: bytes | str, deadline: float) -> bytes:
        if isinstance(item, str) and self._api.has(item):
            return await self._api.result(item, self._cap, deadline)
        if isinstance(item, str):
            return await download(
                self._downloads,
                item,
                guard=self._guard,
                cap=self._cap,
                deadline=deadline,
                fresh=True,
                clock=self._clock,
            )
        if not 0 < len(item) <= self._cap:
            raise Undecodable(f"{NAME}: a result of {len(item)} bytes")
        return item


def bill(handle: Handle, prediction: dict[str, Json]) -> int | None:
    """Return what a prediction costs in micro-dollars; None where its price was not told with the job."""
    return cost_of(prediction, handle.data.get("usd_per_second", ""))
