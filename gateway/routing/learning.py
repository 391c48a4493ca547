"""What experience teaches of a route: how long it takes, and how its run time compares with the config's figures."""

from __future__ import annotations

from dataclasses import dataclass

# One observation in ten: a slow hour shows after a few calls, one slow call hardly at all.
_WEIGHT = 0.1
# What is learned corrects the config's figure within reason: beyond it the figure itself is wrong.
_LEAST, MOST_PACE = 0.25, 4.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """`latency` is seconds from submit to picture, None before the first; `pace` is observed over expected run time."""

    latency: float | None = None
    pace: float = 1.0


class Learning:
    """Running averages per model and route, in memory."""

    def __init__(self) -> None:
        self._lessons: dict[tuple[str, str], Lesson] = {}

    def lesson(self, model: str, route: str) -> Lesson:
        """What is known of a route."""
        return self._lessons.get((model, route), Lesson())

    def learn(self, model: str, route: str, *, latency: float, observed: float | None, expected: float) -> None:
        """Take in one finished call. `observed` is the provider's own run time, where it tells one, in seconds."""
        old = self.lesson(model, route)
        mean = latency if old.latency is None else old.latency + _WEIGHT * (latency - old.latency)
        pace = old.pace
        if observed is not None and expected > 0:
            ratio = min(max(observed / expected, _LEAST), MOST_PACE)
            pace += _WEIGHT * (ratio - pace)
        self._lessons[model, route] = Lesson(mean, pace)
