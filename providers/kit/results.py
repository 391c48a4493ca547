"""Fetching the pictures of a job that has succeeded: the one rule for the results of all providers.

Once a provider says that a job has succeeded it is paid for. From then on there is one thing left to do, to fetch its
pictures, and one way for that to go wrong: it takes longer. Whatever its delivery answers (an error, nothing, a byte a
second, "not found", "forbidden"), the pictures are fetched again, from fresh addresses where the provider names any,
until the deadline. Then the job is Unfetched, and whoever waits may wait again.

The one exception are bytes that came and cannot be the result. They are fetched once more, for a copy may be broken
where the picture is not; if the second is no better, the result is Undecodable.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import httpx

from providers.clock import CLOCK, Clock
from providers.errors import Expired, ProviderError, Undecodable, Unfetched
from providers.http.download import UrlExpired, download
from providers.http.errors import NoAnswer
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import PollAgain

# What a result names: an address, or the bytes themselves.
Named: TypeAlias = "str | bytes"
# Fetches an address, at most so many bytes, until a deadline. Raises UrlExpired, NoAnswer, Expired, and Undecodable.
Fetch: TypeAlias = "Callable[[str, int, float], Awaitable[bytes]]"
# Asks the provider what the job's result names now. Raises NoAnswer, PollAgain, and ProviderError.
Ask: TypeAlias = "Callable[[], Awaitable[Sequence[Named]]]"

TRY_S = 60.0
LEAST_BYTES_PER_S = 16_384
# How long beyond its deadline a result is fetched of a job that was done before it could be cancelled.
GRACE_S = 15.0

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0


def from_strangers(
    client: httpx.AsyncClient,
    url_policy: UrlPolicy,
    *,
    least_bytes_per_s: int = LEAST_BYTES_PER_S,
    clock: Clock = CLOCK,
) -> Fetch:
    """Return what fetches from any public address. `client` is one of `downloads_client`, with this guard."""

    async def fetch(address: str, cap: int, deadline: float) -> bytes:
        return await download(
            client,
            address,
            url_policy=url_policy,
            cap=cap,
            deadline=deadline,
            fresh=True,
            least_bytes_per_s=least_bytes_per_s,
            clock=clock,
        )

    return fetch


class ResultCollector:
    """Fetches the pictures of one provider's jobs with `fetch`, each within `try_s` seconds a try.

    A picture has `most` bytes at most; with `together` that is the limit of all pictures of a job.
    """

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        *,
        most: int,
        together: bool = False,
        try_s: float = TRY_S,
        clock: Clock = CLOCK,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._most = most
        self._together = together
        self._try_s = try_s
        self._clock = clock

    async def collect(
        self, named: Sequence[Named], deadline: float, again: Ask | None = None, *, cost: int | None = None
    ) -> tuple[bytes, ...]:
        """Return the pictures that a result names. `deadline` is a reading of the clock.

        `again` asks what the result names now, for an address may have run out. Raises Unfetched at the deadline, and
        Undecodable for bytes that cannot be the result, twice; both with the job's `cost` in micro-dollars.
        """
        try:
            return await self._collected(named, deadline, again)
        except (Unfetched, Undecodable) as error:
            error.cost = cost
            raise

    async def _collected(self, named: Sequence[Named], deadline: float, again: Ask | None) -> tuple[bytes, ...]:
        got: dict[int, bytes] = {}
        spoilt = False
        for tries in itertools.count():
            pause = _pause(tries)
            try:
                return await self._all(named, got, deadline)
            except Undecodable as error:
                if spoilt:
                    raise
                spoilt, pause, trouble = True, 0.0, error.message
            except (UrlExpired, NoAnswer, Expired, TimeoutError) as error:
                trouble = str(error) or "it took too long"
            if self._clock.now() + pause >= deadline:
                raise Unfetched(f"{self._name}: the job has succeeded, and its picture is not fetched yet: {trouble}")
            await self._clock.sleep(pause)
            fresh = await self._fresh(again, deadline)
            if len(fresh) != len(named):
                got.clear()
            named = fresh or named
        raise AssertionError

    async def _all(self, named: Sequence[Named], got: dict[int, bytes], deadline: float) -> tuple[bytes, ...]:
        for number, item in enumerate(named):
            if number not in got:
                left = self._most - sum(map(len, got.values())) if self._together else self._most
                got[number] = await self._one(item, left, deadline)
        return tuple(got[number] for number in range(len(named)))

    async def _one(self, item: Named, left: int, deadline: float) -> bytes:
        if isinstance(item, bytes):
            data = item
        else:
            async with asyncio.timeout(self._try_s):
                data = await self._fetch(item, max(0, left), deadline)
        if not data:
            raise Undecodable(f"{self._name}: the result is empty")
        if len(data) > left:
            raise Undecodable(f"{self._name}: the result is larger than {self._most} bytes")
        return data

    async def _fresh(self, again: Ask | None, deadline: float) -> Sequence[Named]:
        """What the result names now; nothing where the provider does not say."""
        if again is None:
            return ()
        try:
            async with self._clock.timeout_at(deadline):
                return await again()
        except (ProviderError, NoAnswer, PollAgain, TimeoutError):
            # It has said that the job succeeded; that it does not say so now changes nothing.
            return ()


def _pause(tries: int) -> float:
    """Return the seconds between two tries: twice as long each time, and drawn, so that many do not come at once."""
    most = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries, 16))
    return random.uniform(most / 2, most)  # noqa: S311 - not a secret


def beyond(deadline: float, clock: Clock) -> float:
    """Return until when the result is fetched of a job that was found to be done at its deadline."""
    return max(deadline, clock.now() + GRACE_S)
