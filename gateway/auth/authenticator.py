"""Who comes in: the keys of the environment and of the register, looked up and remembered for seconds."""

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

# So many looked-up ids are remembered, also of keys that are none: whoever tries keys costs no more memory than this.
_MOST = 4096
# A budget that reaches for so many calls like this one is not looked at for each of them.
_FAR = 100


@dataclass(frozen=True, slots=True)
class _Known:
    api_key: ApiKey | None
    until: float


@dataclass(frozen=True, slots=True)
class _Spent:
    period: str
    spent: int
    until: float


class Authenticator:
    """Tells whose a request is. `clock` is the wall's, in seconds.

    What the register says of a key is remembered for `remember_s` seconds: a key that was revoked elsewhere is refused
    here so much later at most.
    """

    def __init__(
        self,
        keys: StaticKeys,
        database: Database,
        rates: RateLimiter,
        *,
        policy: AuthPolicy,
        remember_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rates = rates
        self._keys = keys
        self._policy = policy
        self._database = database
        self._remember_s = remember_s
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._spent: dict[str, _Spent] = {}
        self._looking: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._registered = False
        self._registered_until = 0.0
        self._counting: asyncio.Task[bool] | None = None

    async def closed(self, headers: Mapping[str, str]) -> bool:
        """Whether a call that `admit` knows nobody for is refused. Raises LedgerDown.

        A key of the register that is revoked or expired is refused whatever the policy, not taken for no key.
        """
        if self._policy is AuthPolicy.REQUIRED:
            return True
        if (name := id_of(presented(headers) or "")) is not None and await self._find(name) is not None:
            return True
        return self._policy is AuthPolicy.WHILE_KEYS_EXIST and await self._any_key()

    async def _any_key(self) -> bool:
        """Whether the register has a key that was not revoked."""
        if self._clock() >= self._registered_until:
            # Of many calls at once, one asks.
            if self._counting is None:
                self._counting = asyncio.create_task(self._count())
                self._counting.add_done_callback(self._counted)
            await asyncio.shield(self._counting)
        return self._registered

    async def _count(self) -> bool:
        began = self._clock()
        self._registered = await self._database.read(key_store.any_in_force)
        self._registered_until = began + self._remember_s
        return self._registered

    def _counted(self, task: asyncio.Task[bool]) -> None:
        self._counting = None

    async def admit(self, headers: Mapping[str, str]) -> ApiKey | None:
        """The grant of the key that a request carries; None where it is none that is good. Raises LedgerDown."""
        key = presented(headers)
        if key is None:
            return None
        found = self._keys.find(key)
        if found is None and (name := id_of(key)) is not None:
            found = await self._find(name)
        return found if found is not None and found.matches(digest(key), self._clock()) else None

    async def afford(self, api_key: ApiKey, micros: int) -> None:
        """Raise BudgetExceeded where a key's budget does not reach for so many micro-dollars by now. Raises LedgerDown.

        This spares the work for what would be refused. What decides is the charge that is written before a submit.
        """
        if (budget := api_key.budget) is None or micros <= 0:
            return
        now = self._clock()
        period = budget.period(now).name
        seen = self._spent.get(api_key.id)
        fresh = seen is not None and seen.until > now and seen.period == period
        if fresh and seen is not None and seen.spent + _FAR * micros <= budget.limit:
            return
        spent = await self._database.read(lambda connection: key_store.spent_in(connection, api_key.id, period))
        _bound(self._spent)
        self._spent[api_key.id] = _Spent(period, spent or 0, now + self._remember_s)
        try:
            check(budget, spent or 0, micros, now)
        except BudgetExceeded:
            metrics.REFUSED.labels("budget").inc()
            raise

    async def add(self, api_key: ApiKey) -> None:
        """Enter a new key. Raises LedgerDown."""
        await self._database.write(lambda connection: key_store.add(connection, api_key))
        self._known.pop(api_key.id, None)
        self._registered_until = 0.0

    async def change(self, api_key: ApiKey) -> None:
        """Write down what a key may from now on. Raises LedgerDown."""
        await self._database.write(lambda connection: key_store.change(connection, api_key))
        self._known.pop(api_key.id, None)

    async def revoke(self, key: str) -> bool:
        """Revoke a key; false where there is none with this id. Raises LedgerDown."""
        now = self._clock()
        found = await self._database.write(lambda connection: key_store.revoke(connection, key, now))
        self._known.pop(key, None)
        self._registered_until = 0.0
        return found

    async def one(self, key: str) -> tuple[ApiKey, int] | None:
        """A key of the register, and what it has spent in its budget's period. Raises LedgerDown."""
        now = self._clock()
        return await self._database.read(lambda connection: key_store.told(connection, key, now))

    async def all(self) -> list[tuple[ApiKey, int]]:
        """Every key of the register, the newest first, with what it has spent. Raises LedgerDown."""
        now = self._clock()
        return await self._database.read(lambda connection: key_store.all_told(connection, now))

    async def _find(self, name: str) -> ApiKey | None:
        known = self._known.get(name)
        if known is not None and self._clock() < known.until:
            return known.api_key
        # Of many calls at once with one key, one asks.
        task = self._looking.get(name)
        if task is None:
            task = self._looking[name] = asyncio.create_task(self._look(name))
            task.add_done_callback(lambda _: self._looking.pop(name, None))
        return await asyncio.shield(task)

    async def _look(self, name: str) -> ApiKey | None:
        began = self._clock()
        api_key = await self._database.read(lambda connection: key_store.find(connection, name))
        _bound(self._known)
        self._known[name] = _Known(api_key, began + self._remember_s)
        return api_key


def _bound(known: dict[str, Any]) -> None:
    """Make room for one more by forgetting the oldest."""
    while len(known) >= _MOST:
        del known[next(iter(known))]
