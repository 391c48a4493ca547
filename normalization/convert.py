"""Converters: pure functions from a parameter's value to what a provider takes, named in the config.

Each takes the value and its rule and returns what goes on the wire. Where the wire cannot say the value exactly, the
result carries the value that it does say, so that the plan can finish the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    return Wire(int(larger) if larger.is_integer() else larger, larger)


CONVERTERS: Mapping[str, Converter] = {"input_url": input_url, "next_larger": next_larger}

# Converters whose rule lists steps to choose from: the choices are not the values that callers may give.
STEPPED = frozenset({"next_larger"})
