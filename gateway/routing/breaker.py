"""Circuit breakers: the health of routes and providers, in memory, with an injected clock.

A route whose provider is unreachable, or responds with failures, is ejected for a while and then probed with one
request; each consecutive ejection is longer. A throttled route cools down for as long as the provider says. A provider
that refuses our account or key is suspended as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from providers.errors import ProviderError, Unreached

Standing = Literal["well", "ejected", "cooling", "parked"]

_WINDOW_S = 30.0
_WINDOW_LEAST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a route is ejected, and for how long. Times are in seconds.

    `unreached` consecutive requests that never left, or `failures` consecutive answered errors, or more than half of at
    least ten answers within 30 seconds.
    """

    unreached: int = 3
    failures: int = 5
    ejection_s: float = 30
    max_ejection_s: float = 300
    throttle_default_s: float = 5
    max_throttle_s: float = 300
    account_suspend_s: float = 300


@dataclass(slots=True)
class _RouteState:
    unreached: int = 0
    failures: int = 0
    recent: deque[tuple[float, bool]] = field(default_factory=deque)
    ejections: int = 0
    ejected_until: float = 0
    cooling_until: float = 0
    probing: bool = False


class Breakers:
    """The health of all routes and providers. `clock` is monotonic, in seconds."""

    def __init__(self, policy: BreakerSettings, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._routes: dict[tuple[str, str], _RouteState] = {}
        self._suspended: dict[str, float] = {}

    def standing(self, model: str, route: str, provider: str) -> tuple[Standing, float]:
        """A route's health, and the seconds until it may change (0 if it is healthy)."""
        now = self._clock()
        found = self._routes.get((model, route), _RouteState())
        if (until := self._suspended.get(provider, 0)) > now:
            return "parked", until - now
        if found.cooling_until > now:
            return "cooling", found.cooling_until - now
        if found.ejected_until > now or found.probing:
            return "ejected", max(0.0, found.ejected_until - now)
        return "well", 0.0

    @contextmanager
    def attempt(self, model: str, route: str, provider: str) -> Iterator[None]:
        """Wrap one attempt: its errors are recorded, and only one attempt at a time probes an ejected route."""
        found = self._routes.setdefault((model, route), _RouteState())
        probe = found.ejections > 0 and not found.probing
        found.probing = found.probing or probe
        try:
            yield
        except ProviderError as error:
            self._failed(found, provider, error)
            raise
        else:
            self._succeeded(found)
        finally:
            if probe:
                found.probing = False

    def _succeeded(self, route: _RouteState) -> None:
        route.unreached = route.failures = route.ejections = 0
        route.ejected_until = 0
        self._remember(route, good=True)

    def _failed(self, route: _RouteState, provider: str, error: ProviderError) -> None:
        now, policy = self._clock(), self._policy
        if error.health == "parks":
            self._suspended[provider] = now + policy.account_suspend_s
        elif error.health == "cools_down":
            pause = error.retry_after if error.retry_after is not None else policy.throttle_default_s
            route.cooling_until = now + min(pause, policy.max_throttle_s)
        elif error.health == "counts":
            if isinstance(error, Unreached):
                route.unreached += 1
            else:
                route.failures += 1
                self._remember(route, good=False)
            if self._is_unhealthy(route):
                route.ejections += 1
                route.unreached = route.failures = 0
                route.recent.clear()
                length = min(policy.ejection_s * route.ejections, policy.max_ejection_s)
                route.ejected_until = now + length

    def _is_unhealthy(self, route: _RouteState) -> bool:
        # A failed probe ejects at once, because the route was already unhealthy.
        if route.ejections or route.unreached >= self._policy.unreached or route.failures >= self._policy.failures:
            return True
        bad = sum(not good for _, good in route.recent)
        return len(route.recent) >= _WINDOW_LEAST and bad * 2 > len(route.recent)

    def _remember(self, route: _RouteState, *, good: bool) -> None:
        now = self._clock()
        route.recent.append((now, good))
        while route.recent[0][0] < now - _WINDOW_S:
            route.recent.popleft()
