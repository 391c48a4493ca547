"""Converters: pure functions from a parameter's value to what a provider takes, named in the config.

Each takes the value and its rule and returns what goes on the wire. Where the wire cannot say the value exactly, the
result carries the value that it does say, so that the plan can finish the rest. Each declares what it reads of its
rule, and the config is held against that at the start: no rule may refuse every request.
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
    """A converted value, and the value of the parameter that it stands for at the provider."""

    value: Value
    means: Value


class NoSuchValue(ValueError):
    """The provider has nothing for this value: the route cannot serve the request."""


@dataclass(frozen=True, slots=True)
class TableKey:
    """A key of the rule that a converter reads.

    `example` is how it may be written, `wrong` says what is wrong with what a rule has there, "" where it is right.
    """

    example: str
    wrong: Callable[[ConvertedRule], str] = lambda rule: ""
    needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """A converter, and what it reads of its rule.

    `types` are those of the parameters that it converts. `choices` is what it picks from, None where it picks from
    nothing; `table` is what it looks up. With `bounded`, the rule's min, max and choices bound what callers may give,
    as those of any other rule do.
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
        """What is wrong with a rule that uses this, for a parameter of the type `kind` (None: not known)."""
        if kind is not None and kind not in self.types:
            others = [other.name for other in CONVERTERS.values() if kind in other.types]
            expected = f"one that takes this type: {', '.join(others)}" if others else "a rule without a converter"
            yield ModelProblem(("using",), f"{self.name}, which takes no parameter of the type {kind}", expected)
            return
        for key, read in (("choices", self.choices), ("table", self.table)):
            if read is None:
                continue
            if not getattr(rule, key):
                if read.needed:
                    yield ModelProblem((key,), "nothing", f"what {self.name} needs, such as {read.example}")
            elif wrong := read.wrong(rule):
                yield ModelProblem((key,), wrong, f"what {self.name} reads, such as {read.example}")
        for key in ("choices", "table", "min", "max"):
            if not self.reads(key) and getattr(rule, key) not in (None, {}):
                others = [other.name for other in CONVERTERS.values() if other.reads(key) and kind in other.types]
                expected = f"a rule without it{', or a converter that reads it: ' if others else ''}{', '.join(others)}"
                yield ModelProblem((key,), f"a key that {self.name} does not read", expected)


CONVERTERS: dict[str, Converter] = {}


def _converter(
    *types: ParamType, choices: TableKey | None = None, table: TableKey | None = None, bounded: bool = False
) -> Callable[[Callable[[Value, ConvertedRule], Converted]], Converter]:
    """Declare a function a converter, under its own name."""

    def declared(convert: Callable[[Value, ConvertedRule], Converted]) -> Converter:
        made = Converter(
            name=convert.__name__, convert=convert, types=types, choices=choices, table=table, bounded=bounded
        )
        CONVERTERS[made.name] = made
        return made

    return declared


def _no_numbers(rule: ConvertedRule) -> str:
    """What next_larger cannot compare."""
    wrong = [choice for choice in rule.choices or () if isinstance(choice, (bool, str))]
    return f"{wrong[0]!r}, which is no number" if wrong else ""


def _not_the_choices(rule: ConvertedRule) -> str:
    """Which step has no word, and which word no step: the one is refused, the other never sent."""
    steps = [str(_plain(float(choice))) for choice in rule.choices or () if not isinstance(choice, (bool, str))]
    missing, unknown = ([a for a in one if a not in other] for one, other in ((steps, rule.table), (rule.table, steps)))
    if not steps:
        return ""
    if missing:
        return f"no word for {', '.join(missing)}"
    return f"a word for {', '.join(unknown)}, not among the choices" if unknown else ""


def _no_ratios(rule: ConvertedRule) -> str:
    wrong = [choice for choice in rule.choices or () if not _RATIO.fullmatch(str(choice))]
    return f"{wrong[0]!r}, which is no ratio" if wrong else ""


def _more_than_auto(rule: ConvertedRule) -> str:
    unread = [key for key in rule.table if key != "auto"]
    return f"a word for {', '.join(unread)}, which is never looked up" if unread else ""


_RATIO = re.compile(r"0*[1-9][0-9]*:0*[1-9][0-9]*")


@_converter("image")
def input_url(value: Value, rule: ConvertedRule) -> Converted:
    """The picture as an address that the provider can read: a data URI or an upload, as its adapter finds best."""
    if not isinstance(value, Image):
        raise NoSuchValue("a picture is needed")
    return Converted(value, value)


@_converter(
    "integer",
    "number",
    "enum",
    choices=TableKey("choices = [2, 4]", _no_numbers),
    table=TableKey('table = { 2 = "2x", 4 = "4x" }', _not_the_choices, needed=False),
)
def next_larger(value: Value, rule: ConvertedRule) -> Converted:
    """The next larger of the route's choices; what is too large is brought to the asked size afterwards."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoSuchValue("a number is needed")
    steps = sorted(float(step) for step in rule.choices or ())
    larger = next((step for step in steps if step >= value), None)
    if larger is None:
        raise NoSuchValue(f"the largest is {steps[-1]:g}" if steps else "the rule has no choices")
    sent = _plain(larger)
    return Converted(_word(sent, rule) if rule.table else sent, larger)


@_converter(
    "string",
    "integer",
    "number",
    "boolean",
    "enum",
    table=TableKey('table = { "the caller\'s word" = "the provider\'s word" }'),
    bounded=True,
)
def lookup(value: Value, rule: ConvertedRule) -> Converted:
    """The provider's word for the value, from the rule's table."""
    return Converted(_word(value, rule), value)


@_converter("string", "integer", "number", "boolean", "enum", bounded=True)
def text(value: Value, rule: ConvertedRule) -> Converted:
    """The value as text, for a provider that takes its numbers in quotes."""
    return Converted(f"{value:g}" if isinstance(value, float) else str(value), value)


@_converter(
    "string",
    "enum",
    choices=TableKey('choices = ["1:1", "3:2", "2:3"]', _no_ratios),
    table=TableKey('table = { auto = "match_input_image" }', _more_than_auto, needed=False),
)
def aspect_ratio(value: Value, rule: ConvertedRule) -> Converted:
    """The choice, written W:H, whose shape is nearest to a size; `auto` is the table's word for it, or nothing."""
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


def _word(value: Value, rule: ConvertedRule) -> Value:
    if str(value) not in rule.table:
        raise NoSuchValue(f"there are {', '.join(rule.table)}")
    return cast("Value", rule.table[str(value)])


# Converters whose rule lists what to choose from: the choices are not the values that callers may give.
STEPPED = frozenset(name for name, converter in CONVERTERS.items() if converter.choices)
