"""Authenticates requests against static and stored API keys, with a short-lived cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.auth import store as key_store
from gateway.auth.budgets import check
from gateway.auth.keys import ApiKey, AuthPolicy, BudgetExceeded, StaticKeys, digest, id_of, presented
from gateway.auth.rate_limits import RateLimiter
from gateway.database.writer import Database
from gateway.telemetry import metrics

# Size of the cache. Unknown ids are cached too, so guessing keys cannot use more memory than this.
_MAX_CACHED = 4096
# While the remaining budget covers this many requests like the current one, the cached amount is precise enough.
_AMPLE_REQUESTS = 100


@dataclass(frozen=True, slots=True)
class _CachedKey:
    api_key: ApiKey | None
    until: float


@dataclass(frozen=True, slots=True)
class _CachedSpending:
    period: str
    spent: int
    until: float


class Authenticator:
    """Finds the API key of a request. `clock` is the wall clock, in seconds.

    A stored key is cached for `cache_s` seconds: a key revoked by another process is refused here after at most that
    time.
    """

    def __init__(
        self,
        keys: StaticKeys,
        database: Database,
        rates: RateLimiter,
        *,
        policy: AuthPolicy,
        cache_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rates = rates
        self._keys = keys
        self._policy = policy
        self._database = database
        self._cache_s = cache_s
        self._clock = clock
        self._cached: dict[str, _CachedKey] = {}
        self._spent: dict[str, _CachedSpending] = {}
        self._lookups: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._registered = False
        self._registered_until = 0.0
        self._counting: asyncio.Task[bool] | None = None

    async def closed(self, headers: Mapping[str, str]) -> bool:
        """Whether a request for which `admit` finds no key is refused. Raises LedgerDown.

        A revoked or expired stored key is refused under every policy; it is not treated as no key.
        """
        if self._policy is AuthPolicy.REQUIRED:
            return True
        if (name := id_of(presented(headers) or "")) is not None and await self._find(name) is not None:
            return True
        return self._policy is AuthPolicy.WHILE_KEYS_EXIST and await self._any_key()

    async def _any_key(self) -> bool:
        """Whether a stored key exists that was not revoked."""
        if self._clock() >= self._registered_until:
            # Concurrent requests share one query.
            if self._counting is None:
                self._counting = asyncio.create_task(self._count())
                self._counting.add_done_callback(self._counted)
            await asyncio.shield(self._counting)
        return self._registered

    async def _count(self) -> bool:
        began = self._clock()
        self._registered = await self._database.read(key_store.any_in_force)
        self._registered_until = began + self._cache_s
        return self._registered

    def _counted(self, task: asyncio.Task[bool]) -> None:
        self._counting = None

    async def admit(self, headers: Mapping[str, str]) -> ApiKey | None:
        """The valid API key of a request; None if it has none. Raises LedgerDown."""
        key = presented(headers)
        if key is None:
            return None
        api_key = self._keys.find(key)
        if api_key is None and (name := id_of(key)) is not None:
            api_key = await self._find(name)
        return api_key if api_key is not None and api_key.matches(digest(key), self._clock()) else None

    async def check_budget(self, api_key: ApiKey, micros: int) -> None:
        """Raise BudgetExceeded if a key's remaining budget is below `micros` micro-dollars. Raises LedgerDown.

        An early check that avoids needless work. The reservation written before a submit is what decides.
        """
        if (budget := api_key.budget) is None or micros <= 0:
            return
        now = self._clock()
        period = budget.period(now).name
        cached = self._spent.get(api_key.id)
        fresh = cached is not None and cached.until > now and cached.period == period
        if fresh and cached is not None and cached.spent + _AMPLE_REQUESTS * micros <= budget.limit:
            return
        spent = await self._database.read(lambda connection: key_store.spent_in(connection, api_key.id, period))
        _evict(self._spent)
        self._spent[api_key.id] = _CachedSpending(period, spent or 0, now + self._cache_s)
        try:
            check(budget, spent or 0, micros, now)
        except BudgetExceeded:
            metrics.REFUSED.labels("budget").inc()
            raise

    async def add(self, api_key: ApiKey) -> None:
        """Store a new key. Raises LedgerDown."""
        await self._database.write(lambda connection: key_store.add(connection, api_key))
        self._cached.pop(api_key.id, None)
        self._registered_until = 0.0

    async def change(self, api_key: ApiKey) -> None:
        """Store a key's new limits. Raises LedgerDown."""
        await self._database.write(lambda connection: key_store.change(connection, api_key))
        self._cached.pop(api_key.id, None)

    async def revoke(self, key: str) -> bool:
        """Revoke a key; false if no key has this id. Raises LedgerDown."""
        now = self._clock()
        exists = await self._database.write(lambda connection: key_store.revoke(connection, key, now))
        self._cached.pop(key, None)
        self._registered_until = 0.0
        return exists

    async def one(self, key: str) -> tuple[ApiKey, int] | None:
        """A stored key, and what it has spent in the current budget period. Raises LedgerDown."""
        now = self._clock()
        return await self._database.read(lambda connection: key_store.with_spent(connection, key, now))

    async def all(self) -> list[tuple[ApiKey, int]]:
        """All stored keys, the newest first, with what each has spent. Raises LedgerDown."""
        now = self._clock()
        return await self._database.read(lambda connection: key_store.all_with_spent(connection, now))

    async def _find(self, name: str) -> ApiKey | None:
        cached = self._cached.get(name)
        if cached is not None and self._clock() < cached.until:
            return cached.api_key
        # Concurrent requests with the same key share one query.
        task = self._lookups.get(name)
        if task is None:
            task = self._lookups[name] = asyncio.create_task(self._load(name))
            task.add_done_callback(lambda _: self._lookups.pop(name, None))
        return await asyncio.shield(task)

    async def _load(self, name: str) -> ApiKey | None:
        began = self._clock()
        api_key = await self._database.read(lambda connection: key_store.find(connection, name))
        _evict(self._cached)
        self._cached[name] = _CachedKey(api_key, began + self._cache_s)
        return api_key


def _evict(cache: dict[str, Any]) -> None:
    """Evict the oldest entries of a cache until one more fits."""
    while len(cache) >= _MAX_CACHED:
        del cache[next(iter(cache))]
