"""Requests a minute and calls at once, for each key."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limits import RateLimitItemPerMinute, WindowStats
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from gateway.telemetry.logs import event

if TYPE_CHECKING:
    from limits.aio.strategies import MovingWindowRateLimiter as SharedLimiter
    from redis.asyncio import BlockingConnectionPool

# Counting must not hold up a call for longer than the call is worth.
_REDIS_S = 0.5
# How long a Redis that failed is left alone: each try costs a caller the time above.
_REST_S = 5.0
_CONNECTIONS = 16
_EXPIRE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How a key stands after a call. `reset_s` is in how many seconds the oldest call leaves the minute."""

    limit: int
    remaining: int
    reset_s: float
    allowed: bool

    def headers(self) -> dict[str, str]:
        """As OpenAI's headers tell it."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset_s:.3f}".rstrip("0").rstrip(".") + "s",
        }

    @property
    def retry_after(self) -> int:
        """In how many whole seconds a call will be taken again."""
        return max(1, math.ceil(self.reset_s))


class _Memory(MemoryStorage):
    """The library's own, which throws away what has expired once a second, and not from a new thread every 10 ms."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "timer":
            value.interval, value.daemon = _EXPIRE_S, True
        super().__setattr__(name, value)


class RateLimiter:
    """Counts calls over a moving minute: in memory, or in a Redis that all processes share.

    While the Redis is away each process counts for itself: a limit that is somewhat loose is better than no service.
    """

    def __init__(self, url: str | None = None) -> None:
        self._own = MovingWindowRateLimiter(_Memory())
        self._pool = _pool(url) if url is not None else None
        self._shared = _limiter(self._pool) if self._pool is not None else None
        self._rests_until = 0.0
        self._calls: Counter[str] = Counter()

    async def take(self, key: str, rpm: int) -> RateLimit:
        """Count one call of a key, unless that is one too many."""
        item = RateLimitItemPerMinute(rpm)
        if self._shared is not None and time.monotonic() >= self._rests_until:
            try:
                allowed = await self._shared.hit(item, key)
                return _rate(item, allowed, await self._shared.get_window_stats(item, key))
            except Exception as error:  # noqa: BLE001 - whatever it is, calls are counted here meanwhile
                self._rests_until = time.monotonic() + _REST_S
                event("limits.redis_failed", logging.ERROR, error=type(error).__name__)
        # In memory: it waits for nothing.
        allowed = self._own.hit(item, key)
        return _rate(item, allowed, self._own.get_window_stats(item, key))

    async def aclose(self) -> None:
        """Close what is open."""
        if self._pool is not None:
            await self._pool.aclose()

    def enter(self, key: str, most: int) -> bool:
        """Begin a call of a key in this process; false where `most` go on already. Each true needs a `leave`."""
        if self._calls[key] >= most:
            return False
        self._calls[key] += 1
        return True

    def leave(self, key: str) -> None:
        """End a call."""
        self._calls[key] -= 1
        if self._calls[key] <= 0:
            del self._calls[key]


def _pool(url: str) -> BlockingConnectionPool:
    from redis.asyncio import BlockingConnectionPool

    return BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=_REDIS_S, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S
    )


def _limiter(pool: BlockingConnectionPool) -> SharedLimiter:
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    # Given a pool of ours, because the storage opens connections and has no word for closing them. It reads nothing
    # from the address then.
    options: dict[str, Any] = {"connection_pool": pool}
    return MovingWindowRateLimiter(
        RedisStorage("async+redis://", implementation="redispy", key_prefix="darkroom", **options)
    )


def _rate(item: RateLimitItemPerMinute, allowed: bool, stats: WindowStats) -> RateLimit:
    return RateLimit(
        limit=item.amount,
        remaining=max(0, stats.remaining),
        reset_s=max(0.0, stats.reset_time - time.time()),
        allowed=allowed,
    )
