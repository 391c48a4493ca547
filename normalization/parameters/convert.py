"""Converters: pure functions from a parameter's value to the provider's value, named in the config.

Each takes the value and its rule and returns what is sent. If the provider has no exact equivalent, the result also
states the value that was sent in effect, so that the plan can do the rest. Each declares which keys of its rule it
reads, and the config is checked against that at startup, so that no rule can refuse every request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from normalization.parameters.rules import ConvertedRule, ModelProblem, ParamType
from normalization.parameters.sizing import parse_size
from normalization.values import Image, Value


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted value, and the parameter value that it is equivalent to at the provider."""

    value: Value
    means: Value


class NoSuchValue(ValueError):
    """The provider has no equivalent of this value: the route cannot serve the request."""


@dataclass(frozen=True, slots=True)
class TableKey:
    """A key of the rule that a converter reads.

    `example` shows how to write it; `wrong` describes what is wrong with a rule's value, "" if it is valid.
    """

    example: str
    wrong: Callable[[ConvertedRule], str] = lambda rule: ""
    needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """A converter, and the keys of the rule that it reads.

    `types` are the parameter types that it converts. `choices` is the list it selects from, None if it has none;
    `table` is its lookup table. With `bounded`, the rule's min, max and choices limit the client's values, as in any
    other rule.
    """

    name: str
    convert: Callable[[Value, ConvertedRule], Converted]
    types: tuple[ParamType, ...]
    choices: TableKey | None = None
    table: TableKey | None = None
    bounded: bool = False

    def __call__(self, value: Value, rule: ConvertedRule) -> Converted:
        return self.convert(value, rule)

    def reads(self, key: str) -> bool:
        """Whether a rule's choices, table, min or max has an effect."""
        picks = {"choices": self.choices, "table": self.table}
        return picks.get(key) is not None or (self.bounded and key != "table")

    def problems(self, rule: ConvertedRule, kind: ParamType | None) -> Iterator[ModelProblem]:
        """The problems of a rule that uses this converter, for a parameter of type `kind` (None: unknown)."""
        if kind is not None and kind not in self.types:
            others = [other.name for other in CONVERTERS.values() if kind in other.types]
            expected = f"one that converts this type: {', '.join(others)}" if others else "a rule without a converter"
            yield ModelProblem(("using",), f"{self.name}, which does not convert parameters of type {kind}", expected)
            return
        for key, read in (("choices", self.choices), ("table", self.table)):
            if read is None:
                continue
            if not getattr(rule, key):
                if read.needed:
                    yield ModelProblem((key,), "nothing", f"the key that {self.name} requires, such as {read.example}")
            elif wrong := read.wrong(rule):
                yield ModelProblem((key,), wrong, f"a value that {self.name} can use, such as {read.example}")
        for key in ("choices", "table", "min", "max"):
            if not self.reads(key) and getattr(rule, key) not in (None, {}):
                others = [other.name for other in CONVERTERS.values() if other.reads(key) and kind in other.types]
                expected = f"a rule without it{', or a converter that uses it: ' if others else ''}{', '.join(others)}"
                yield ModelProblem((key,), f"a key that {self.name} does not use", expected)


CONVERTERS: dict[str, Converter] = {}


def _converter(
    *types: ParamType, choices: TableKey | None = None, table: TableKey | None = None, bounded: bool = False
) -> Callable[[Callable[[Value, ConvertedRule], Converted]], Converter]:
    """Register a function as a converter, under its own name."""

    def declared(convert: Callable[[Value, ConvertedRule], Converted]) -> Converter:
        converter = Converter(
            name=convert.__name__, convert=convert, types=types, choices=choices, table=table, bounded=bounded
        )
        CONVERTERS[converter.name] = converter
        return converter

    return declared


def _no_numbers(rule: ConvertedRule) -> str:
    """The choices that next_larger cannot compare."""
    wrong = [choice for choice in rule.choices or () if isinstance(choice, (bool, str))]
    return f"{wrong[0]!r}, which is not a number" if wrong else ""


def _not_the_choices(rule: ConvertedRule) -> str:
    """Choices without an entry in the table, which would be refused, and entries without a choice, never sent."""
    steps = [str(_plain(float(choice))) for choice in rule.choices or () if not isinstance(choice, (bool, str))]
    missing, unknown = ([a for a in one if a not in other] for one, other in ((steps, rule.table), (rule.table, steps)))
    if not steps:
        return ""
    if missing:
        return f"no entry for {', '.join(missing)}"
    return f"an entry for {', '.join(unknown)}, not among the choices" if unknown else ""


def _no_ratios(rule: ConvertedRule) -> str:
    wrong = [choice for choice in rule.choices or () if not _RATIO.fullmatch(str(choice))]
    return f"{wrong[0]!r}, which is not a ratio" if wrong else ""


def _more_than_auto(rule: ConvertedRule) -> str:
    unread = [key for key in rule.table if key != "auto"]
    return f"an entry for {', '.join(unread)}, which is never looked up" if unread else ""


_RATIO = re.compile(r"0*[1-9][0-9]*:0*[1-9][0-9]*")


@_converter("image")
def input_url(value: Value, rule: ConvertedRule) -> Converted:
    """The image as a URL that the provider can read: a data URI or an upload, as the adapter decides."""
    if not isinstance(value, Image):
        raise NoSuchValue("an image is required")
    return Converted(value, value)


@_converter(
    "integer",
    "number",
    "enum",
    choices=TableKey("choices = [2, 4]", _no_numbers),
    table=TableKey('table = { 2 = "2x", 4 = "4x" }', _not_the_choices, needed=False),
)
def next_larger(value: Value, rule: ConvertedRule) -> Converted:
    """The next larger of the route's choices; the result is resized to the requested size afterwards."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoSuchValue("a number is required")
    steps = sorted(float(step) for step in rule.choices or ())
    larger = next((step for step in steps if step >= value), None)
    if larger is None:
        raise NoSuchValue(f"the largest is {steps[-1]:g}" if steps else "the rule has no choices")
    sent = _plain(larger)
    return Converted(_look_up(sent, rule) if rule.table else sent, larger)


@_converter(
    "string",
    "integer",
    "number",
    "boolean",
    "enum",
    table=TableKey('table = { "client value" = "provider value" }'),
    bounded=True,
)
def lookup(value: Value, rule: ConvertedRule) -> Converted:
    """The provider's value, from the rule's table."""
    return Converted(_look_up(value, rule), value)


@_converter("string", "integer", "number", "boolean", "enum", bounded=True)
def text(value: Value, rule: ConvertedRule) -> Converted:
    """The value as text, for a provider that expects numbers as strings."""
    return Converted(f"{value:g}" if isinstance(value, float) else str(value), value)


@_converter(
    "string",
    "enum",
    choices=TableKey('choices = ["1:1", "3:2", "2:3"]', _no_ratios),
    table=TableKey('table = { auto = "match_input_image" }', _more_than_auto, needed=False),
)
def aspect_ratio(value: Value, rule: ConvertedRule) -> Converted:
    """The choice W:H nearest to the aspect ratio of a size; `auto` becomes the table's entry for it, if any."""
    size = parse_size(value)
    if size is None:
        return Converted(cast("Value", rule.table.get("auto")), value)
    wanted = math.log(size.width / size.height)
    ratios = [str(choice) for choice in rule.choices or ()]
    nearest = min(ratios, key=lambda ratio: abs(_shape(ratio) - wanted), default=None)
    if nearest is None:
        raise NoSuchValue("the rule has no choices")
    return Converted(nearest, value)


def _plain(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _shape(ratio: str) -> float:
    width, _, height = ratio.partition(":")
    return math.log(float(width) / float(height))


def _look_up(value: Value, rule: ConvertedRule) -> Value:
    if str(value) not in rule.table:
        raise NoSuchValue(f"supported values are {', '.join(rule.table)}")
    return cast("Value", rule.table[str(value)])


# Converters whose choices are what the converter selects from, and do not limit the client's values.
STEPPED = frozenset(name for name, converter in CONVERTERS.items() if converter.choices)
