"""Prices: the expected cost of a plan, in micro-dollars (millionths of a US dollar), and run times of past jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from normalization.parameters.schema import Price
from normalization.values import Plan, Size

# The weight of an observation in the moving average: a slow hour shows after a few calls, one slow call hardly.
_WEIGHT = 0.1
# Observed run times adjust the config's figure only within these bounds: beyond them the figure itself is wrong.
_LEAST, MOST_PACE = 0.25, 4.0


@dataclass(frozen=True, slots=True)
class RunStats:
    """`latency` is the time from submit to image in seconds, None before the first; `pace` is observed/expected."""

    latency: float | None = None
    pace: float = 1.0


class RunStatsStore:
    """Running averages per model and route, in memory."""

    def __init__(self) -> None:
        self._lessons: dict[tuple[str, str], RunStats] = {}

    def lesson(self, model: str, route: str) -> RunStats:
        """The statistics of a route."""
        return self._lessons.get((model, route), RunStats())

    def learn(self, model: str, route: str, *, latency: float, observed: float | None, expected: float) -> None:
        """Record one finished call. `observed` is the run time reported by the provider, if any, in seconds."""
        old = self.lesson(model, route)
        mean = latency if old.latency is None else old.latency + _WEIGHT * (latency - old.latency)
        pace = old.pace
        if observed is not None and expected > 0:
            ratio = min(max(observed / expected, _LEAST), MOST_PACE)
            pace += _WEIGHT * (ratio - pace)
        self._lessons[model, route] = RunStats(mean, pace)


MICROS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An expected cost in micro-dollars, and each price component's part in it.

    `most` is the maximum cost, which a budget has to cover, because the run time is only expected. `seconds` is the
    expected run time of one call according to the config, 0 if the price has none.
    """

    micros: int
    most: int
    components: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0

    @property
    def usd(self) -> float:
        return self.micros / MICROS


def estimate(price: Price, source: Size, plan: Plan, *, pace: float = 1.0) -> Estimate:
    """The expected cost of all calls of a plan. Each call is rounded up to a whole micro-dollar.

    `pace` is the observed divided by the expected run time.
    """
    output = plan.output or plan.likely or source
    per_call = plan.pictures_per_call
    seconds = price.seconds + price.seconds_per_output_megapixel * output.megapixels * plan.work
    amounts = {
        "per_image": (price.per_image, per_call * plan.work),
        "per_output_megapixel": (price.per_output_megapixel, _megapixels(price, output) * per_call * plan.work),
        "per_input_megapixel": (price.per_input_megapixel, _megapixels(price, source) * plan.work),
        "per_second": (price.per_second, seconds * per_call),
    }
    parts = {name: rate * amount for name, (rate, amount) in amounts.items() if rate is not None}
    expected, most = (_components(price, parts, at, len(plan.calls)) for at in (pace, MOST_PACE))
    return Estimate(micros=sum(expected.values()), most=sum(most.values()), components=expected, seconds=seconds)


def _components(price: Price, parts: Mapping[str, float], pace: float, calls: int) -> dict[str, int]:
    """The cost of all calls at this pace, by component, in micro-dollars."""
    paced = {name: usd * pace if name == "per_second" else usd for name, usd in parts.items()}
    short = price.minimum - sum(paced.values())
    if short > 0:
        paced["minimum"] = short
    return {name: _micros(usd) * calls for name, usd in paced.items()}


def _megapixels(price: Price, size: Size) -> float:
    step = price.megapixel_step
    return size.megapixels if step is None else math.ceil(size.megapixels / step) * step


def _micros(usd: float) -> int:
    # A rounding error must not add a whole micro-dollar: 0.03 * 1e6 is 30000.000000000004.
    return math.ceil(round(usd * MICROS, 6))
