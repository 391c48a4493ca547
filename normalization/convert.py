"""Converters: pure functions from a parameter's value to what a provider takes, named in the config.

Each takes the value and its rule and returns what goes on the wire. Where the wire cannot say the value exactly, the
result carries the value that it does say, so that the plan can finish the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from normalization.geometry import parse_size
from normalization.rules import Converted
from normalization.values import Image, Value


@dataclass(frozen=True, slots=True)
class Wire:
    """A converted value, and the value of the parameter that it stands for at the provider."""

    value: Value
    means: Value


Converter = Callable[[Value, Converted], Wire]


class NoSuchValue(ValueError):
    """The provider has nothing for this value: the route cannot serve the request."""


def input_url(value: Value, rule: Converted) -> Wire:
    """The picture as an address that the provider can read: a data URI or an upload, as its adapter finds best."""
    if not isinstance(value, Image):
        raise NoSuchValue("a picture is needed")
    return Wire(value, value)


def next_larger(value: Value, rule: Converted) -> Wire:
    """The next larger of the route's choices; what is too large is brought to the asked size afterwards."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoSuchValue("a number is needed")
    steps = sorted(float(step) for step in rule.choices or ())
    larger = next((step for step in steps if step >= value), None)
    if larger is None:
        raise NoSuchValue(f"the largest is {steps[-1]:g}" if steps else "the rule has no choices")
    sent: Value = int(larger) if larger.is_integer() else larger
    return Wire(_word(sent, rule) if rule.table else sent, larger)


def lookup(value: Value, rule: Converted) -> Wire:
    """The provider's word for the value, from the rule's table."""
    return Wire(_word(value, rule), value)


def text(value: Value, rule: Converted) -> Wire:
    """The value as text, for a provider that takes its numbers in quotes."""
    return Wire(f"{value:g}" if isinstance(value, float) else str(value), value)


def aspect_ratio(value: Value, rule: Converted) -> Wire:
    """The choice, written W:H, whose shape is nearest to a size; `auto` is the table's word for it, or nothing."""
    size = parse_size(value)
    if size is None:
        return Wire(cast("Value", rule.table.get("auto")), value)
    wanted = math.log(size.width / size.height)
    ratios = [str(choice) for choice in rule.choices or ()]
    nearest = min(ratios, key=lambda ratio: abs(_shape(ratio) - wanted), default=None)
    if nearest is None:
        raise NoSuchValue("the rule has no choices")
    return Wire(nearest, value)


def _shape(ratio: str) -> float:
    width, _, height = ratio.partition(":")
    return math.log(float(width) / float(height))


def _word(value: Value, rule: Converted) -> Value:
    if str(value) not in rule.table:
        raise NoSuchValue(f"there are {', '.join(rule.table)}")
    return cast("Value", rule.table[str(value)])


CONVERTERS: Mapping[str, Converter] = {
    "input_url": input_url,
    "next_larger": next_larger,
    "lookup": lookup,
    "text": text,
    "aspect_ratio": aspect_ratio,
}

# Converters whose rule lists what to choose from: the choices are not the values that callers may give.
STEPPED = frozenset({"next_larger", "aspect_ratio"})
