"""Limits per API key: requests per minute, and concurrent requests in this process."""

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

# The timeout of Redis: counting must not delay a request for long.
_REDIS_S = 0.5
# How long Redis is not used after a failure: each attempt could delay a request by the timeout above.
_REDIS_PAUSE_S = 5.0
_CONNECTIONS = 16
_EXPIRE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A key's rate limit after a request. `reset_s` is the time until the oldest one leaves the window, in s."""

    limit: int
    remaining: int
    reset_s: float
    allowed: bool

    def headers(self) -> dict[str, str]:
        """The state as OpenAI's rate limit headers."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset_s:.3f}".rstrip("0").rstrip(".") + "s",
        }

    @property
    def retry_after(self) -> int:
        """Whole seconds until a request is accepted again."""
        return max(1, math.ceil(self.reset_s))


class _Memory(MemoryStorage):
    """The library's storage, but expiring entries once a second instead of in a new thread every 10 ms."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "timer":
            value.interval, value.daemon = _EXPIRE_S, True
        super().__setattr__(name, value)


class RateLimiter:
    """Counts requests in a sliding window of one minute: in memory, or in a Redis shared by all processes.

    While Redis is unavailable each process counts on its own: a looser limit is better than no service.
    """

    def __init__(self, url: str | None = None) -> None:
        self._own = MovingWindowRateLimiter(_Memory())
        self._pool = _pool(url) if url is not None else None
        self._shared = _limiter(self._pool) if self._pool is not None else None
        self._redis_paused_until = 0.0
        self._calls: Counter[str] = Counter()

    async def take(self, key: str, rpm: int) -> RateLimit:
        """Count one request of a key, unless the limit is reached."""
        item = RateLimitItemPerMinute(rpm)
        if self._shared is not None and time.monotonic() >= self._redis_paused_until:
            try:
                allowed = await self._shared.hit(item, key)
                return _rate(item, allowed, await self._shared.get_window_stats(item, key))
            except Exception as error:  # noqa: BLE001 - after any error, this process counts on its own
                self._redis_paused_until = time.monotonic() + _REDIS_PAUSE_S
                event("limits.redis_failed", logging.ERROR, error=type(error).__name__)
        # In memory, so this does not block.
        allowed = self._own.hit(item, key)
        return _rate(item, allowed, self._own.get_window_stats(item, key))

    async def aclose(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    def enter(self, key: str, most: int) -> bool:
        """Begin a request of a key in this process; false if `most` are in progress. Each true needs a `leave`."""
        if self._calls[key] >= most:
            return False
        self._calls[key] += 1
        return True

    def leave(self, key: str) -> None:
        """End a request."""
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

    # We pass our own pool, because the storage cannot close the connections that it opens. The address is then unused.
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
