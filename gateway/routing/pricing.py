"""What a plan will cost, in micro-dollars (millionths of a US dollar)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from normalization.model import Price
from normalization.values import Plan, Size

MICROS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An expected cost in micro-dollars, with the part that each component of the price has in it.

    `seconds` is the provider's expected run time of one call by the config's figures, 0 where the price has none.
    """

    micros: int
    components: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0

    @property
    def usd(self) -> float:
        return self.micros / MICROS


def estimate(price: Price, source: Size, plan: Plan, *, pace: float = 1.0) -> Estimate:
    """The expected cost of all calls of a plan. Each call is rounded up to a whole micro-dollar.

    `pace` is what experience says of the run time: observed over expected.
    """
    output = plan.output or source
    per_call = plan.pictures_per_call
    seconds = price.seconds + price.seconds_per_output_megapixel * output.megapixels
    amounts = {
        "per_image": (price.per_image, per_call),
        "per_output_megapixel": (price.per_output_megapixel, _megapixels(price, output) * per_call),
        "per_input_megapixel": (price.per_input_megapixel, _megapixels(price, source)),
        "per_second": (price.per_second, seconds * pace * per_call),
    }
    parts = {name: rate * amount for name, (rate, amount) in amounts.items() if rate is not None}
    short = price.minimum - sum(parts.values())
    if short > 0:
        parts["minimum"] = short
    calls = len(plan.calls)
    components = {name: _micros(usd) * calls for name, usd in parts.items()}
    return Estimate(micros=sum(components.values()), components=components, seconds=seconds)


def _megapixels(price: Price, size: Size) -> float:
    step = price.megapixel_step
    return size.megapixels if step is None else math.ceil(size.megapixels / step) * step


def _micros(usd: float) -> int:
    # A float's own error must not become a whole micro-dollar: 0.03 * 1e6 is 30000.000000000004.
    return math.ceil(round(usd * MICROS, 6))
